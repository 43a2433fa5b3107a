"""Opens the ledger: engines for SQLite and PostgreSQL, transactions, migrations."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import ColumnElement, Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from config.errors import LedgerError
from config.secrets import redact
from config.settings import Settings
from ledger.metrics import tally

# Alembic tells each start of every command; only its warnings matter here.
logging.getLogger("alembic").setLevel(logging.WARNING)

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 15_000
MAKING_S = 20.0
"""How long a ledger that others are making is waited for."""
MIGRATING = 0x7570746965
CONNECT_TIMEOUT_S = 5
SILENCE_MS = 10_000
"""How long what was sent may stay without a sign that it arrived, on either side. Linux would go on
for a quarter of an hour, at ever longer intervals: after a link that was cut for half a minute the
next try comes 20 s late, and a server that is gone is believed in all the while."""
KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""Seconds, seconds and a count, for a connection on which nothing is under way."""
SERVER_SIDE = {
    # A machine that is lost in mid-transaction must not block all others until TCP tells.
    "lock_timeout": 15_000,
    "idle_in_transaction_session_timeout": 30_000,
    # Nor hold its connections for the two hours that a server's kernel would wait: of 100 there
    # would be none left when it comes back.
    "tcp_user_timeout": SILENCE_MS,
    **{f"tcp_{name}": value for name, value in KEEPALIVE.items()},
}
"""What the server is told of a connection."""
OR_FILE = ", or into the file of UPTIER_DATABASE_PASSWORD_FILE"
MENDS = (
    ("password authentication failed", "put the right one into UPTIER_DATABASE_URL" + OR_FILE),
    ("no password supplied", "put the password into UPTIER_DATABASE_URL" + OR_FILE),
    ("no pg_hba.conf entry", "let this host in (pg_hba.conf), or correct UPTIER_DATABASE_URL"),
    ("certificate verify failed", "name the authority in UPTIER_DATABASE_URL (sslrootcert=...)"),
    ("does not support SSL", "drop sslmode from UPTIER_DATABASE_URL, or give the server TLS"),
    ("Connection refused", "start PostgreSQL, or correct host and port in UPTIER_DATABASE_URL"),
    ("failed to resolve host", "correct the host in UPTIER_DATABASE_URL"),
    ("timeout expired", "correct host and port in UPTIER_DATABASE_URL, or the firewall between"),
    ("timed out", "look at its host and the network between"),
    ("unreachable", "correct the host in UPTIER_DATABASE_URL, or the network between"),
    ("No route to host", "correct the host in UPTIER_DATABASE_URL, or the network between"),
    ("permission denied", "give the user of UPTIER_DATABASE_URL the right to make tables"),
    ("role ", "create the user, or correct UPTIER_DATABASE_URL"),
    ("database ", "create the database, or correct UPTIER_DATABASE_URL"),
)


def open_ledger(settings: Settings) -> Engine:
    """An engine on the settings' ledger; its file appears with the first migration.

    Raises:
        LedgerError: the directory cannot be written.
    """
    url = make_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite":
        _make_directory(url.database or "")
        engine = create_engine(
            url,
            connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
            hide_parameters=True,
            execution_options={tally.COUNTS: settings.metrics},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        hide_parameters=True,  # an error's text goes to logs and watchers, prompts do not
        pool_pre_ping=True,  # a server that was restarted costs no work
        # Each of many worker processes has its own; a server allows 100 connections by default.
        pool_size=3,
        max_overflow=7,
        pool_recycle=1800,
        execution_options={tally.COUNTS: settings.metrics},
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": " ".join(f"-c {name}={value}" for name, value in SERVER_SIDE.items()),
            "tcp_user_timeout": SILENCE_MS,
            **KEEPALIVE,
            "application_name": f"uptier {os.environ.get('UPTIER_WORKER_NAME', '')}".strip(),
        },
    )


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction, with what it counts (metrics/tally.py); it holds SQLite's write lock
    from its first statement on."""
    with engine.begin() as connection:
        tally.begin(connection)
        yield connection
        tally.write(connection)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view that takes no write lock."""
    with engine.connect().execution_options(uptier_reads=True) as connection:
        yield connection


def insert_or_ignore(connection: Connection, table: Table, unique: list[str]) -> Any:
    """An INSERT that leaves rows alone whose ``unique`` columns are there already."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=unique)
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=unique)


def insert_or_replace(
    connection: Connection,
    table: Table,
    unique: list[str],
    columns: Sequence[str],
    *,
    where: ColumnElement[bool],
) -> Any:
    """An INSERT that gives rows whose ``unique`` columns are there already new values in
    ``columns``, if ``where`` holds of the old row."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    return statement.on_conflict_do_update(
        index_elements=unique,
        set_={name: statement.excluded[name] for name in columns},
        where=where,
    )


def migrate(settings: Settings) -> None:
    """Bring the ledger to this version's tables; nothing happens if it has them.

    Raises:
        LedgerError: the ledger cannot be reached or written, or a newer Uptier made it.
    """
    engine = open_ledger(settings)
    try:
        # Those who start at once stand in one another's way where SQLite does not wait by itself:
        # while one of them makes the file and its log.
        Retrying(
            retry=retry_if_exception(_is_locked),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            stop=stop_after_delay(MAKING_S),
            reraise=True,
        )(_bring_up, engine)
    except DBAPIError as error:
        raise ledger_error(engine, error) from None
    finally:
        engine.dispose()


def require_ledger(settings: Settings) -> None:
    """Nothing, if there may be a ledger: looking at one that is not there must not make its file.

    Raises:
        LedgerError: no command that works with it has run yet.
    """
    url = make_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise LedgerError(
            f"there is no ledger at {url.database} yet: `uptier up` makes it, or name another "
            "UPTIER_DATA_DIR"
        )


def ledger_version(settings: Settings) -> str | None:
    """The version of a ledger's tables; ``None`` while it has none, and where there is no file.

    Raises:
        LedgerError: it does not answer.
    """
    url = make_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return None  # looking must not make one
    engine = open_ledger(settings)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise ledger_error(engine, error) from None
    finally:
        engine.dispose()


def newest_version() -> str:
    """The version of the tables that this Uptier works with."""
    return str(ScriptDirectory.from_config(_alembic_config()).get_current_head())


def known_versions() -> set[str]:
    """Every version of the tables that this Uptier can start from."""
    script = ScriptDirectory.from_config(_alembic_config())
    return {each.revision for each in script.walk_revisions()}


def _bring_up(engine: Engine) -> None:
    config = _alembic_config()
    script = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == script.get_current_head():
        return
    if current is not None and current not in known_versions():
        raise LedgerError(
            f"ledger {_place(engine.url)} is of version {current!r}, made by a newer Uptier: "
            "update Uptier, or name another UPTIER_DATA_DIR"
        )
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Machines that start at once: the first makes the tables, the others find them.
            connection.exec_driver_sql(f"select pg_advisory_xact_lock({MIGRATING})")
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and "database is locked" in str(error.orig)


def ledger_error(engine: Engine, error: DBAPIError) -> LedgerError:
    """One line for a ledger that does not answer as it should."""
    cause = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
    place = "UPTIER_DATA_DIR" if engine.dialect.name == "sqlite" else "UPTIER_DATABASE_URL"
    mend = next((mend for word, mend in MENDS if word in cause), f"check {place}")
    return LedgerError(f"ledger {_place(engine.url)} cannot be used: {cause}; {mend}")


def ledger_place(settings: Settings) -> str:
    """Where the ledger lies, without a password."""
    return _place(make_url(settings.ledger_url))


def _alembic_config() -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _place(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return url.database or ""
    return redact(url.render_as_string())  # a password may also be among the query's parameters


def _make_directory(database: str) -> None:
    folder = Path(database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"data directory {folder} cannot be made: {error.strerror}; "
            "name another UPTIER_DATA_DIR"
        ) from None
    if not os.access(folder, os.W_OK):
        raise LedgerError(f"data directory {folder} is not writable: name another UPTIER_DATA_DIR")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions by itself: _begin_sqlite says which kind.
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        # In WAL mode a crash of the process loses nothing; a power cut may lose the last moments.
        "synchronous=NORMAL",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=ON",
        "cache_size=-8000",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("uptier_reads", False)
    # A writer that began as a reader can lose the upgrade with SQLITE_BUSY at once.
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
