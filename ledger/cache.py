"""Answers that were accepted before, for the same question again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, bindparam, delete, func, select, update

from ledger.database import insert_or_ignore, reading, writing
from ledger.tables import TABLES

ENTRIES = TABLES.tables["cache_entry"]
MAX_ENTRIES = 10_000


@dataclass(frozen=True)
class Cached:
    """An answer that the cache holds."""

    key: str
    answer: str
    lane: str
    p_answer: float | None


def look_up(engine: Engine, keys: Sequence[str], now: int) -> dict[str, Cached]:
    """What the cache holds of ``keys``; each hit is counted."""
    query = select(ENTRIES.c.key, ENTRIES.c.answer, ENTRIES.c.lane, ENTRIES.c.p_answer)
    with reading(engine) as connection:
        rows = connection.execute(query.where(ENTRIES.c.key.in_(set(keys)))).all()
    found = {r.key: Cached(r.key, r.answer, r.lane, r.p_answer) for r in rows}
    if found:
        counts = [{"b_key": k, "b_hits": list(keys).count(k)} for k in sorted(found)]
        statement = (
            update(ENTRIES)
            .where(ENTRIES.c.key == bindparam("b_key"))
            .values(hits=ENTRIES.c.hits + bindparam("b_hits"), used_at=now)
        )
        with writing(engine) as connection:
            connection.execute(statement, counts)
    return found


def store(engine: Engine, entries: Sequence[Cached], now: int) -> None:
    """Keep accepted answers; the first answer to a question stays.

    Beyond the bound the least recently used entries leave.
    """
    if not entries:
        return
    rows = [
        {"key": e.key, "answer": e.answer, "lane": e.lane, "p_answer": e.p_answer, "hits": 0,
         "created_at": now, "used_at": now}
        for e in sorted(entries, key=lambda entry: entry.key)
    ]  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert_or_ignore(connection, ENTRIES, ["key"]), rows)
        count = connection.execute(select(func.count()).select_from(ENTRIES)).scalar_one()
        if count > MAX_ENTRIES:
            oldest = select(ENTRIES.c.key).order_by(ENTRIES.c.used_at).limit(count - MAX_ENTRIES)
            connection.execute(delete(ENTRIES).where(ENTRIES.c.key.in_(oldest)))
