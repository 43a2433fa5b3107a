"""The requests of a session as the ledger has them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, select

from ledger.clock import SECOND
from ledger.database import reading
from ledger.records import asked, settled
from ledger.tables import TABLES
from routing.decision import Decision, Settled, State

DECISIONS = TABLES.tables["decision"]


@dataclass(frozen=True)
class StoredTurn:
    """One request, as it was asked; ``settled`` is absent while it is open."""

    id: str
    decision: Decision
    settled: Settled | None
    seconds: float


def find_turns(engine: Engine, run_id: str, prefix: str) -> list[StoredTurn]:
    """The decisions of a run whose keys begin with ``prefix``, in the order of their keys."""
    query = (
        select(*DECISIONS.c)
        .where(DECISIONS.c.run_id == run_id, DECISIONS.c.key.startswith(prefix, autoescape=True))
        .order_by(DECISIONS.c.key)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [
        StoredTurn(
            row.id,
            asked(row, ""),
            settled(row) if row.state == State.SETTLED.value else None,
            ((row.settled_at or row.created_at) - row.created_at) / SECOND,
        )
        for row in rows
    ]
