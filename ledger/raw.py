"""Reads decisions by the keys that their askers gave them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, select

from ledger.database import reading
from ledger.records import settled
from ledger.runs import RUNS
from ledger.transitions import DECISIONS, chunks
from routing.decision import Settled, State


def find_run_id(engine: Engine, mode: str, name: str) -> str | None:
    """The id of the latest run of that mode and name."""
    query = (
        select(RUNS.c.id)
        .where(RUNS.c.mode == mode, RUNS.c.name == name)
        .order_by(RUNS.c.created_at.desc())
        .limit(1)
    )
    with reading(engine) as connection:
        return connection.execute(query).scalar_one_or_none()


def find_by_keys(engine: Engine, run_id: str, keys: Sequence[str]) -> dict[str, Settled | None]:
    """Those of ``keys`` that the run knows, with their settlements; ``None`` for open ones."""
    columns = DECISIONS.c
    found: dict[str, Settled | None] = {}
    with reading(engine) as connection:
        for chunk in chunks(keys):
            query = select(
                columns.id, columns.key, columns.kind, columns.state, columns.status,
                columns.answer, columns.answer_lane, columns.reason, columns.cost_micros,
                columns.climbs, columns.p_answer,
            ).where(columns.run_id == run_id, columns.key.in_(chunk))  # fmt: skip
            for row in connection.execute(query):
                ended = row.state == State.SETTLED.value
                found[row.key] = settled(row) if ended else None
    return {key: found[key] for key in keys if key in found}
