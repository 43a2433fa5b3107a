"""Workers' signs of life, and offices that one process at a time may hold."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, select, update
from sqlalchemy.exc import DBAPIError

from config.settings import Settings
from ledger.clock import SECOND, now
from ledger.database import (
    insert_or_ignore,
    ledger_error,
    open_ledger,
    reading,
    require_ledger,
    writing,
)
from ledger.metrics import counting
from ledger.tables import TABLES

ALIVE_US = 30 * SECOND
"""A worker that has not been heard of for so long counts as gone."""

WORKERS = TABLES.tables["worker"]
LEADERS = TABLES.tables["leader"]


@dataclass(frozen=True)
class Life:
    """Who a worker process is."""

    token: str
    name: str
    lane: str


def announce(engine: Engine, life: Life, state: str, stats: dict[str, Any] | None = None) -> None:
    """Write or refresh a worker's row; rows of long-gone workers leave with it."""
    moment = now()
    values = {
        "name": life.name,
        "lane": life.lane,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "state": state,
        "heartbeat_at": moment,
        "stats": json.dumps(stats or {}),
    }
    with writing(engine) as connection:
        mine = update(WORKERS).where(WORKERS.c.token == life.token).values(**values)
        if connection.execute(mine).rowcount == 0:
            row = values | {"token": life.token, "started_at": moment}
            counting.worker_started(connection, life.lane, replaces=_died(connection, life))
            connection.execute(WORKERS.insert().values(**row))
            long_gone = WORKERS.c.heartbeat_at < moment - 20 * ALIVE_US
            connection.execute(delete(WORKERS).where(long_gone))


def _died(connection: Connection, life: Life) -> bool:
    """Whether the worker that had this name here before never said that it stops."""
    mine = (WORKERS.c.name == life.name) & (WORKERS.c.host == socket.gethostname())
    last = select(WORKERS.c.state).where(mine).order_by(WORKERS.c.started_at.desc()).limit(1)
    return connection.execute(last).scalar() == "ready"


def ready_workers(settings: Settings) -> set[str]:
    """Tokens of the workers that serve their queue now."""
    engine = open_ledger(settings)
    query = select(WORKERS.c.token).where(
        WORKERS.c.state == "ready", WORKERS.c.heartbeat_at > now() - ALIVE_US
    )
    try:
        with reading(engine) as connection:
            return set(connection.execute(query).scalars())
    finally:
        engine.dispose()


def told_figures(settings: Settings) -> dict[int, dict[str, float]]:
    """The figures of each worker that is alive on this machine, by its process id.

    Raises:
        SQLAlchemyError: the ledger does not answer or is of another version.
    """
    engine = open_ledger(settings)
    query = select(WORKERS.c.pid, WORKERS.c.stats).where(
        WORKERS.c.host == socket.gethostname(), WORKERS.c.heartbeat_at > now() - ALIVE_US
    )
    try:
        with reading(engine) as connection:
            return {row.pid: json.loads(row.stats) for row in connection.execute(query)}
    finally:
        engine.dispose()


def states_here(settings: Settings, lane: str) -> list[str]:
    """The states of this machine's workers of a lane that were heard of lately.

    Raises:
        LedgerError: the ledger does not answer, is of another version, or was not made yet.
    """
    require_ledger(settings)
    engine = open_ledger(settings)
    query = select(WORKERS.c.state).where(
        WORKERS.c.host == socket.gethostname(),
        WORKERS.c.lane == lane,
        WORKERS.c.heartbeat_at > now() - ALIVE_US,
    )
    try:
        with reading(engine) as connection:
            return list(connection.execute(query).scalars())
    except DBAPIError as error:
        raise ledger_error(engine, error) from None
    finally:
        engine.dispose()


@dataclass(frozen=True)
class Sign:
    """A worker's last sign of life: when (microseconds), and its figures then."""

    heartbeat_at: int
    figures: dict[str, float]


def signs(engine: Engine, tokens: Collection[str]) -> dict[str, Sign]:
    """The last signs of life of some instances, by token."""
    query = select(WORKERS.c.token, WORKERS.c.heartbeat_at, WORKERS.c.stats).where(
        WORKERS.c.token.in_(list(tokens))
    )
    with reading(engine) as connection:
        return {
            row.token: Sign(row.heartbeat_at, json.loads(row.stats))
            for row in connection.execute(query)
        }


def served_lanes(engine: Engine, since: int) -> set[str]:
    """Lanes of workers that were heard of after ``since``."""
    query = select(WORKERS.c.lane).where(WORKERS.c.heartbeat_at > since).distinct()
    with reading(engine) as connection:
        return set(connection.execute(query).scalars())


def serving(engine: Engine, moment: int) -> dict[str, set[str]]:
    """The lanes that workers serve at ``moment``, each with the machines of its workers."""
    query = select(WORKERS.c.lane, WORKERS.c.host).where(
        WORKERS.c.state == "ready", WORKERS.c.heartbeat_at > moment - ALIVE_US
    )
    found: dict[str, set[str]] = {}
    with reading(engine) as connection:
        for row in connection.execute(query):
            found.setdefault(row.lane, set()).add(row.host)
    return found


def hold_office(engine: Engine, office: str, holder: str, *, moment: int, lease_us: int) -> bool:
    """Take or keep an office for ``lease_us`` from ``moment``; false while another holds it."""
    mine_or_free = (LEADERS.c.holder == holder) | (LEADERS.c.until < moment)
    with writing(engine) as connection:
        taken = connection.execute(
            update(LEADERS)
            .where(LEADERS.c.office == office, mine_or_free)
            .values(holder=holder, until=moment + lease_us)
        )
        if taken.rowcount == 1:
            return True
        row = {"office": office, "holder": holder, "until": moment + lease_us}
        new = connection.execute(insert_or_ignore(connection, LEADERS, ["office"]).values(**row))
        return new.rowcount == 1


def leave_office(engine: Engine, office: str, holder: str) -> None:
    """Give an office up, so that the next holder need not wait for the lease to end."""
    with writing(engine) as connection:
        connection.execute(
            delete(LEADERS).where(LEADERS.c.office == office, LEADERS.c.holder == holder)
        )
