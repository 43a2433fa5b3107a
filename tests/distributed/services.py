"""A broker and a database on the store: Redis and PostgreSQL, each with a password."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis

from tests.distributed.hosts import STORE_ADDRESS, Host, TwoHosts
from tests.integration.places import PASSWORD, Absent

REDIS_PORT = 6379
POSTGRES_PORT = 5432
POSTGRES = Path("/usr/lib/postgresql")
OWNER = "postgres"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
SECRET = quote(PASSWORD, safe="")


@dataclass(frozen=True)
class Services:
    """Where broker and database serve, from either host."""

    broker_url: str
    database_url: str
    """The superuser's database, beside which others may be made."""
    past_the_link: str
    """The same database by its Unix socket, which the link has no part in."""


@contextmanager
def services(hosts: TwoHosts) -> Iterator[Services]:
    """Broker and database on the store.

    Raises:
        Absent: one of them is not on this machine.
    """
    with _redis(hosts) as broker_url, _postgres(hosts) as (database_url, past_the_link):
        yield Services(broker_url, database_url, past_the_link)


@contextmanager
def _redis(hosts: TwoHosts) -> Iterator[str]:
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        raise Absent("there is no redis-server on the PATH")
    folder = hosts.folder / "redis"
    folder.mkdir()
    configuration, socket = folder / "redis.conf", folder / "socket"
    configuration.write_text(
        f'port {REDIS_PORT}\nbind {STORE_ADDRESS}\nunixsocket "{socket}"\nsave ""\n'
        f'requirepass "{PASSWORD}"\ndir "{folder}"\nmaxmemory-policy noeviction\n'
        "appendonly yes\n"
    )
    with _serving(hosts.store, folder / "log", binary, configuration):
        with redis.Redis(unix_socket_path=str(socket), password=PASSWORD) as client:
            _wait(lambda: _pings(client), folder / "log")
        yield f"redis://:{SECRET}@{STORE_ADDRESS}:{REDIS_PORT}/0"


@contextmanager
def _postgres(hosts: TwoHosts) -> Iterator[tuple[str, str]]:
    binaries = sorted(POSTGRES.glob("*/bin"), key=lambda path: int(path.parent.name))
    if not binaries:
        raise Absent(f"there is no PostgreSQL in {POSTGRES}")
    folder = hosts.folder / "postgres"
    folder.mkdir()
    data, secret = folder / "data", folder / "password"
    secret.write_text(PASSWORD)
    user = _user_of(folder, secret)
    made = hosts.store.run(
        *user, binaries[-1] / "initdb", "--no-sync", "--no-instructions", "-D", data, "-U", OWNER,
        "--pwfile", secret, "--auth", "scram-sha-256",
    )  # fmt: skip
    if made.returncode:
        raise Absent(f"initdb: {made.stderr.strip()}")
    with (data / "pg_hba.conf").open("a") as file:
        file.write("host all all 192.0.2.0/24 scram-sha-256\n")
    url = f"postgresql://{OWNER}:{SECRET}@{STORE_ADDRESS}:{POSTGRES_PORT}/postgres"
    within = f"postgresql://{OWNER}:{SECRET}@/postgres?host={folder}"
    # Nothing here loses its power: files need not be forced to a disk.
    server = (binaries[-1] / "postgres", "-D", data, "-p", str(POSTGRES_PORT), "-k", folder,
              "-c", f"listen_addresses={STORE_ADDRESS}", "-c", "fsync=off")  # fmt: skip
    with _serving(hosts.store, folder / "log", *user, *server):
        _wait(lambda: _answers(within), folder / "log")
        yield url, within


def _user_of(*paths: Path) -> tuple[str, ...]:
    """Hand files to PostgreSQL's user, since it refuses to run as root; how to become that."""
    try:
        owner = pwd.getpwnam(OWNER)
    except KeyError:
        raise Absent(f"there is no user {OWNER!r} for PostgreSQL to run as") from None
    if shutil.which("setpriv") is None:
        raise Absent("there is no `setpriv` on the PATH (Debian's package util-linux)")
    for path in paths:
        shutil.chown(path, owner.pw_uid, owner.pw_gid)
    return ("setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups")


@contextmanager
def _serving(host: Host, log: Path, *words: str | Path) -> Iterator[None]:
    """A server on a host until the block ends, out of Ctrl-C's reach while it is needed."""
    with log.open("wb") as file:
        server = subprocess.Popen(
            host.command(*words), stdout=file, stderr=file, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        server.send_signal(2)  # PostgreSQL's fast end: SIGTERM would wait for its clients
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def _wait(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not start: {log.read_text()[-500:]}")
        time.sleep(0.1)
