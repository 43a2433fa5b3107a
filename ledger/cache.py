"""Answers that were accepted before, for the same question again or for one alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    bindparam,
    delete,
    func,
    or_,
    select,
    update,
)

from ledger.database import insert_or_replace, reading, writing
from ledger.tables import TABLES
from routing.decision import Status

ENTRIES = TABLES.tables["cache_entry"]
AUDITS = TABLES.tables["cache_audit"]
DECISIONS = TABLES.tables["decision"]
TRIMMING = 0x75707472696D
"""PostgreSQL's advisory lock of who drops entries: two would each drop what is too many."""

BELOW = "answered before by the best attempt of all lanes of this plan"
"""The reason of a decision that the cache gave what was below the bar; its status says only the
latter."""


@dataclass(frozen=True)
class Cached:
    """An answer that the cache holds, or is to hold; times are microseconds since 1970."""

    key: str
    answer: str
    lane: str
    p_answer: float | None
    kind: str = ""
    expires_at: int | None = None
    space: str | None = None
    """What questions that are alike share; ``None``: only the identical one is served."""
    vector: bytes | None = None
    status: Status = Status.ACCEPTED
    """``degraded``: a whole plan came to nothing better."""


def look_up(engine: Engine, keys: Sequence[str], now: int) -> dict[str, Cached]:
    """What the cache holds of ``keys`` and has not expired; each hit is counted."""
    found = fetch(engine, keys, now)
    count_hits(engine, [key for key in keys if key in found], now)
    return found


def fetch(engine: Engine, keys: Sequence[str], now: int) -> dict[str, Cached]:
    """The same, uncounted."""
    if not keys:
        return {}
    query = select(
        ENTRIES.c.key, ENTRIES.c.answer, ENTRIES.c.lane, ENTRIES.c.p_answer, ENTRIES.c.status
    )
    with reading(engine) as connection:
        rows = connection.execute(query.where(ENTRIES.c.key.in_(set(keys)), _lives(now))).all()
    return {
        r.key: Cached(r.key, r.answer, r.lane, r.p_answer, status=Status(r.status)) for r in rows
    }


def vectors(engine: Engine, spaces: Sequence[str], now: int) -> dict[str, list[tuple[str, bytes]]]:
    """Key and vector of all entries of ``spaces`` that have one, by their space."""
    query = select(ENTRIES.c.space, ENTRIES.c.key, ENTRIES.c.vector).where(
        ENTRIES.c.space.in_(set(spaces)), ENTRIES.c.vector.is_not(None), _lives(now)
    )
    found: dict[str, list[tuple[str, bytes]]] = {}
    with reading(engine) as connection:
        for space, key, vector in connection.execute(query):
            found.setdefault(space, []).append((key, vector))
    return found


def count_hits(engine: Engine, keys: Sequence[str], now: int) -> None:
    """Count that each of ``keys`` served, once for every time it stands there."""
    if not keys:
        return
    counts = [{"b_key": k, "b_hits": n} for k, n in sorted(Counter(keys).items())]
    statement = (
        update(ENTRIES)
        .where(ENTRIES.c.key == bindparam("b_key"))
        .values(hits=ENTRIES.c.hits + bindparam("b_hits"), used_at=now)
    )
    with writing(engine) as connection:
        connection.execute(statement, counts)


def store(engine: Engine, entries: Sequence[Cached], now: int) -> None:
    """Keep accepted answers. The first answer to a question stays until it expires; its count of
    hits stays for good."""
    if not entries:
        return
    firsts = {entry.key: entry for entry in reversed(entries)}
    rows = [_row(firsts[key], now) for key in sorted(firsts)]
    renewed = ("answer", "lane", "p_answer", "created_at", "used_at", "expires_at", "space",
               "vector")  # fmt: skip
    with writing(engine) as connection:
        statement = insert_or_replace(
            connection, ENTRIES, ["key"], renewed, where=ENTRIES.c.expires_at <= now
        )
        connection.execute(statement, rows)


def trim(engine: Engine, most: int, now: int) -> int:
    """Drop what has expired, and beyond ``most`` the least recently used; how many left.

    Entries that another transaction is at stay for this time, so that nobody waits for another;
    nothing is done where another process trims right now.
    """
    with writing(engine) as connection:
        if not _trims_alone(connection):
            return 0
        gone = select(ENTRIES.c.key).where(~_lives(now)).with_for_update(skip_locked=True)
        dropped = connection.execute(delete(ENTRIES).where(ENTRIES.c.key.in_(gone))).rowcount
        count = connection.execute(select(func.count()).select_from(ENTRIES)).scalar_one()
        if count > most:
            oldest = (
                select(ENTRIES.c.key)
                .order_by(ENTRIES.c.used_at, ENTRIES.c.key)
                .limit(count - most)
                .with_for_update(skip_locked=True)
            )
            statement = delete(ENTRIES).where(ENTRIES.c.key.in_(oldest))
            dropped += connection.execute(statement).rowcount
    return int(dropped)


def clear(engine: Engine, kind: str | None = None) -> tuple[int, int]:
    """Forget all answers, or those of a kind, and what was learnt of alike ones; how many of
    each."""
    entries, audits = delete(ENTRIES), delete(AUDITS)
    if kind is not None:
        entries, audits = entries.where(ENTRIES.c.kind == kind), audits.where(AUDITS.c.kind == kind)
    with writing(engine) as connection:
        return connection.execute(entries).rowcount, connection.execute(audits).rowcount


def was_served() -> ColumnElement[bool]:
    """Which decisions the cache answered, be it above the bar or below."""
    columns = DECISIONS.c
    below = (columns.status == Status.DEGRADED.value) & (columns.reason == BELOW)
    return (columns.status == Status.CACHED.value) | below


def rests_on(lanes: Sequence[str]) -> ColumnElement[bool]:
    """Which entries lanes had a part in: what is below the bar is so by all lanes of its plan."""
    return ENTRIES.c.lane.in_(lanes) | (ENTRIES.c.status == Status.DEGRADED.value)


def _trims_alone(connection: Connection) -> bool:
    if connection.dialect.name != "postgresql":
        return True  # SQLite has one writer at a time
    lock = select(func.pg_try_advisory_xact_lock(TRIMMING))
    return bool(connection.execute(lock).scalar_one())


def _lives(now: int) -> ColumnElement[bool]:
    return or_(ENTRIES.c.expires_at.is_(None), ENTRIES.c.expires_at > now)


def _row(entry: Cached, now: int) -> dict[str, Any]:
    return {
        "key": entry.key, "kind": entry.kind, "status": entry.status.value,
        "answer": entry.answer, "lane": entry.lane,
        "p_answer": entry.p_answer, "hits": 0, "created_at": now, "used_at": now,
        "expires_at": entry.expires_at, "space": entry.space, "vector": entry.vector,
    }  # fmt: skip
