"""The places where integration tests run: brokers and databases, each fresh and removed again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import redis
import trustme

from config.broker import check_broker
from config.errors import BrokerUnavailable
from config.queues import (
    INTAKE,
    QUALITY,
    make_app,
    name_on_broker,
    pieces_exchange,
    settled_exchange,
)
from config.settings import Settings, load_settings
from workers.valkey import free_port

AMQP_URL = os.environ.get("UPTIER_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//")
POSTGRES_URL = os.environ.get(
    "UPTIER_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)
TWO_HOSTS_URL = os.environ.get("UPTIER_TEST_TWO_HOSTS")
"""The broker of another host, beside which PostgreSQL serves; see tests/distributed."""
LANES = ("tier1", "tier2", "tier3")
"""The lanes of every profile that tests use."""
PASSWORD = "p@ss/w:rd?"
START_TIMEOUT_S = 10


class Absent(Exception):
    """What the place needs is not on this machine."""


@dataclass(frozen=True)
class Place:
    """A broker and a database: settings by name, and the same for a process of its own."""

    name: str
    given: dict[str, Any]

    @property
    def data_dir(self) -> Path:
        """Where stacks of this place keep their files."""
        path: Path = self.given["data_dir"]
        return path

    @property
    def env(self) -> dict[str, str]:
        """The settings as ``UPTIER_*``."""
        return {f"UPTIER_{name.upper()}": str(value) for name, value in self.given.items()}

    def settings(self, **more: Any) -> Settings:
        """The settings, with others beside."""
        return load_settings(**self.given | more)

    def for_a_command(self, data_dir: Path) -> Place:
        """Where a command finds workers: a stack of its own in ``data_dir``, or this place's."""
        return replace(self, given={"data_dir": data_dir}) if self.name == "embedded" else self


@contextmanager
def place_of(name: str, data_dir: Path) -> Iterator[Place]:
    """The place of that name, with an empty database and no messages.

    Raises:
        Absent: a service does not answer.
    """
    with ExitStack() as undo:
        given: dict[str, Any] = {"data_dir": data_dir}
        for part in PLACES[name]:
            given |= undo.enter_context(part(data_dir))
        yield Place(name, given)


@contextmanager
def tls_redis(data_dir: Path) -> Iterator[dict[str, Any]]:
    """A Redis server of our own, behind TLS and a password."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise Absent("there is no redis-server on the PATH")
    folder = data_dir / "redis"
    folder.mkdir()
    ca_file = write_certificates(folder)
    port = free_port()
    configuration = folder / "redis.conf"
    configuration.write_text(
        f'port 0\ntls-port {port}\nbind 127.0.0.1\nrequirepass "{PASSWORD}"\nsave ""\n'
        f'dir "{folder}"\ntls-cert-file server.pem\ntls-key-file server.pem\n'
        f"tls-ca-cert-file ca.pem\ntls-auth-clients no\nmaxmemory-policy noeviction\n"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([binary, configuration], stdout=log, stderr=log)
    url = f"rediss://:{quote(PASSWORD, safe='')}@localhost:{port}/0"
    try:
        _wait(lambda: _pings(url, ca_file), "redis-server")
        yield {"broker_url": url, "broker_ca_file": ca_file}
    finally:
        server.terminate()
        server.wait(START_TIMEOUT_S)


@contextmanager
def rabbitmq(data_dir: Path) -> Iterator[dict[str, Any]]:
    """Names of our own on the RabbitMQ server."""
    given = {"broker_url": AMQP_URL, "key_prefix": f"uptier-test-{uuid.uuid4().hex[:12]}:"}
    settings = load_settings(profile="tiny", data_dir=data_dir, **given)
    app = make_app(settings, AMQP_URL)
    try:
        check_broker(app)
    except BrokerUnavailable as error:
        raise Absent(str(error)) from None
    finally:
        app.close()
    try:
        yield given
    finally:
        remove_names(settings)


@contextmanager
def postgres(_data_dir: Path) -> Iterator[dict[str, Any]]:
    """A database of our own on the PostgreSQL server."""
    name = f"uptier_test_{uuid.uuid4().hex[:12]}"
    try:
        connection = psycopg.connect(POSTGRES_URL, autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        raise Absent(str(error).splitlines()[0]) from None
    with connection:
        connection.execute(f"create database {name}")
        try:
            yield {"database_url": POSTGRES_URL.rpartition("/")[0] + f"/{name}"}
        finally:
            connection.execute(f"drop database {name} with (force)")


@contextmanager
def across(_data_dir: Path) -> Iterator[dict[str, Any]]:
    """Keys of our own at the broker of another host."""
    yield {"broker_url": TWO_HOSTS_URL, "key_prefix": f"uptier-test-{uuid.uuid4().hex[:12]}:"}


PLACES: dict[str, tuple[Callable[[Path], Any], ...]] = {
    "embedded": (),
    "rediss": (tls_redis,),
    "rabbitmq": (rabbitmq,),
    "postgres": (postgres,),
    "rabbitmq-postgres": (rabbitmq, postgres),
    **({"two-hosts": (across, postgres)} if TWO_HOSTS_URL else {}),
}
"""What each place needs beside the embedded Valkey and SQLite."""


def write_certificates(folder: Path) -> Path:
    """A server's certificate with its key for localhost, and its authority, whose path is given."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "server.pem")
    )
    return folder / "ca.pem"


def remove_names(settings: Settings) -> None:
    """Delete every queue and exchange of the settings' prefix."""
    app = make_app(settings, AMQP_URL)
    control = app.conf.control_exchange

    def named(name: str) -> str:
        return name_on_broker(name, AMQP_URL, settings.key_prefix)

    queues = [named(name) for name in (*LANES, QUALITY, INTAKE)]
    host = socket.gethostname()
    queues += [f"{lane}-1@{host}.{control}.pidbox" for lane in (*LANES, QUALITY)]
    exchanges = (
        named("tasks"), settled_exchange(app).name, pieces_exchange(app).name,
        app.conf.event_exchange,
        f"{control}.pidbox", f"reply.{control}.pidbox",
    )  # fmt: skip
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        for name in queues:
            channel.queue_delete(name)
        for name in exchanges:
            channel.exchange_delete(name)
    app.close()


def _pings(url: str, ca_file: Path) -> bool:
    with redis.Redis.from_url(url, ssl_ca_certs=str(ca_file)) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def _wait(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not start"
        time.sleep(0.05)
