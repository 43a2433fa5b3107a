"""What daemons and persons noted for later, by topic and age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, or_, select, update

from ledger.database import reading, writing
from ledger.outbox import new_id
from ledger.runs import RUNS
from ledger.tables import TABLES
from routing.decision import Privacy

MEMORIES = TABLES.tables["memory"]
MAX_CHARS = 4_000
"""Of a memory."""


class Source(StrEnum):
    """Who noted it."""

    DAEMON = "daemon"
    PERSON = "person"
    CONSOLIDATED = "consolidated"
    """Several memories of a topic put into one."""


@dataclass(frozen=True)
class NewMemory:
    """What is to be noted; ``replaces`` are the ids of memories whose place it takes."""

    topic: str
    content: str
    source: Source
    run_id: str | None = None
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Memory:
    """A memory; the time is in microseconds since 1970."""

    id: str
    topic: str
    content: str
    source: Source
    run_id: str | None
    created_at: int


def write(connection: Connection, memory: NewMemory, now: int) -> str:
    """Note something within an open transaction; its id."""
    id = new_id()
    connection.execute(
        insert(MEMORIES).values(
            id=id, run_id=memory.run_id, topic=memory.topic, content=memory.content,
            source=memory.source.value, created_at=now,
        )
    )  # fmt: skip
    if memory.replaces:
        connection.execute(
            update(MEMORIES).where(MEMORIES.c.id.in_(memory.replaces)).values(replaced_by=id)
        )
    return id


def add(engine: Engine, memory: NewMemory, now: int) -> str:
    """Note something; its id."""
    with writing(engine) as connection:
        return write(connection, memory, now)


def query(
    engine: Engine,
    *,
    topic: str | None = None,
    since: int | None = None,
    last: int = 1_000,
    leaving: bool = False,
) -> list[Memory]:
    """The last memories in force, the oldest of them first; of a topic, and not before ``since``
    (microseconds since 1970), where these are given. With ``leaving`` only those that may go into
    prompts which leave the machine."""
    columns = MEMORIES.c
    asked = (
        select(*columns)
        .where(columns.replaced_by.is_(None), *_may_leave(leaving))
        .order_by(columns.created_at.desc(), columns.id.desc())
        .limit(last)
    )
    if topic is not None:
        asked = asked.where(columns.topic == topic)
    if since is not None:
        asked = asked.where(columns.created_at >= since)
    with reading(engine) as connection:
        rows: Sequence[Any] = connection.execute(asked).all()
    return [
        Memory(row.id, row.topic, row.content, Source(row.source), row.run_id, row.created_at)
        for row in reversed(rows)
    ]


def topics(engine: Engine, *, leaving: bool = False) -> dict[str, int]:
    """How many memories in force each topic has; ``leaving`` as for :func:`query`."""
    columns = MEMORIES.c
    asked = (
        select(columns.topic, func.count().label("count"))
        .where(columns.replaced_by.is_(None), *_may_leave(leaving))
        .group_by(columns.topic)
        .order_by(columns.topic)
    )
    with reading(engine) as connection:
        return {row.topic: row[1] for row in connection.execute(asked)}


def _may_leave(leaving: bool) -> list[ColumnElement[bool]]:
    """What was noted in a run whose prompts stay at home stays there as well."""
    if not leaving:
        return []
    run_id, kept = MEMORIES.c.run_id, [one.value for one in Privacy if one.stays_home]
    private = or_(*(RUNS.c.config.contains(f'"privacy": "{level}"') for level in kept))
    return [or_(run_id.is_(None), run_id.not_in(select(RUNS.c.id).where(private)))]
