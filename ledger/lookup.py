"""Decisions as whoever asked them may look them up: their state, their end, and who pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select

from ledger.database import reading
from ledger.records import decision_asked
from ledger.records import settled as as_settled
from ledger.tables import TABLES
from ledger.transitions import chunks
from routing.decision import Decision, Preferences, Settled, State

DECISIONS = TABLES.tables["decision"]


@dataclass(frozen=True)
class Known:
    """A decision of the ledger. Times are microseconds since 1970, money is micro-dollars."""

    id: str
    run_id: str
    key: str
    kind: str
    state: State
    payer: str
    """Whose key asked it; empty for none."""
    created_at: int
    settled_at: int | None
    settled: Settled | None
    """Its end, once it has one."""


def find(engine: Engine, ids: Sequence[str]) -> list[Known]:
    """Those of ``ids`` that the ledger has, in the given order."""
    found: dict[str, Known] = {}
    with reading(engine) as connection:
        for chunk in chunks(list(ids)):
            rows = connection.execute(select(*_columns()).where(DECISIONS.c.id.in_(chunk)))
            found |= {row.id: _known(row) for row in rows}
    return [found[one] for one in ids if one in found]


def asks(engine: Engine, decision_id: str, decision: Decision) -> bool:
    """Whether the stored decision of that id asks what ``decision`` does."""
    row = decision_asked(decision)
    query = select(*(DECISIONS.c[name] for name in row)).where(DECISIONS.c.id == decision_id)
    with reading(engine) as connection:
        found = connection.execute(query).first()
    return found is not None and tuple(found) == tuple(row.values())


def of_run(
    engine: Engine, run_id: str, *, payer: str | None, after: str = "", limit: int
) -> list[Known]:
    """Decisions of a run in the order of submission, from the one after ``after`` on.

    ``payer`` leaves only those of its key. Critics, panels and audits are left out.
    """
    query = (
        select(*_columns())
        .where(DECISIONS.c.run_id == run_id, DECISIONS.c.id > after)
        .where(DECISIONS.c.parent_id.is_(None))
        .order_by(DECISIONS.c.id)
        .limit(limit)
    )
    if payer is not None:
        # As the preferences are written: compact, the name first. LIKE would take ANN for ann.
        mine = DECISIONS.c.preferences
        theirs = f'"payer":{{"name":"{payer}"'
        query = query.where(func.replace(mine, theirs, "") != mine)
    with reading(engine) as connection:
        return [_known(row) for row in connection.execute(query)]


def _columns() -> tuple[Any, ...]:
    columns = DECISIONS.c
    return (
        columns.id, columns.run_id, columns.key, columns.kind, columns.state, columns.status,
        columns.answer, columns.answer_lane, columns.reason, columns.p_answer, columns.climbs,
        columns.cost_micros, columns.preferences, columns.created_at, columns.settled_at,
    )  # fmt: skip


def _known(row: Any) -> Known:
    payer = Preferences.model_validate_json(row.preferences).payer
    ended = row.state == State.SETTLED.value
    return Known(
        id=row.id,
        run_id=row.run_id,
        key=row.key,
        kind=row.kind,
        state=State(row.state),
        payer="" if payer is None else payer.name,
        created_at=row.created_at,
        settled_at=row.settled_at,
        settled=as_settled(row) if ended else None,
    )
