"""What targets ask of the ledger beside usage records: overrun budgets and what critics said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, case, exists, func, literal, or_, select

from ledger.budgets import BUDGETS, run_scope
from ledger.clock import SECOND
from ledger.database import reading
from ledger.tables import TABLES
from ledger.usage import Selection
from routing.critique import CRITIC_KIND, NO, YES
from routing.decision import Status

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
RUNS = TABLES.tables["run"]
SHOWN = 5
JUDGED = (Status.ACCEPTED.value, Status.CACHED.value)


@dataclass(frozen=True)
class Overruns:
    """Budgets that bound a selection, how many of them were exceeded, and some of these."""

    bounded: int
    exceeded: int
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class Critics:
    """How often critics said yes, of all times that they said anything that counts."""

    yes: int
    said: int


def overruns(engine: Engine, chosen: Selection) -> Overruns:
    """Budgets of a run; or since a time: of its days, of those who pay, and of the runs and
    decisions that made calls since."""
    columns = BUDGETS.c
    bounds = columns.limit_micros.is_not(None) | columns.limit_calls.is_not(None)
    over = (columns.spent_micros > columns.limit_micros) | (columns.calls > columns.limit_calls)
    ours = bounds & _scopes(chosen)
    counts = select(func.count(), func.coalesce(func.sum(case((over, 1), else_=0)), 0)).where(ours)
    some = select(columns.scope).where(ours, over).order_by(columns.scope).limit(SHOWN)
    with reading(engine) as connection:
        bounded, exceeded = connection.execute(counts).one()
        found = connection.execute(some).scalars().all() if exceeded else []
    return Overruns(bounded, int(exceeded), tuple(found))


def critics(engine: Engine, chosen: Selection) -> Critics:
    """What the critics of a selection said; what was never answered counts for nothing."""
    columns = DECISIONS.c
    query = select(columns.answer, func.count()).where(
        columns.kind == CRITIC_KIND,
        columns.parent_id.is_not(None),
        columns.status.in_(JUDGED),
        columns.answer.in_((YES, NO)),
    )
    if chosen.run is not None:
        query = query.where(columns.run_id == chosen.run)
    if chosen.since is not None:
        query = query.where(columns.settled_at >= chosen.since)
    with reading(engine) as connection:
        rows = connection.execute(query.group_by(columns.answer)).all()
    counts = {answer: count for answer, count in rows}  # noqa: C416 - rows are no pairs to mypy
    return Critics(yes=counts.get(YES, 0), said=sum(counts.values()))


def _scopes(chosen: Selection) -> ColumnElement[bool]:
    scope = BUDGETS.c.scope
    parts: list[Any] = []
    if chosen.run is None:
        for name in ("day", "audit"):
            ours = scope.startswith(f"{name}:")
            if chosen.since is not None:
                ours = and_(ours, scope >= f"{name}:{_date(chosen.since)}")
            parts.append(ours)
        parts.append(_of_payers(scope, chosen.since))
        if chosen.since is None:
            return or_(*parts, scope.startswith("run:"), scope.startswith("agent:"),
                       scope.startswith("request:"))  # fmt: skip
    called = select(DECISIONS.c.id, DECISIONS.c.run_id)
    if chosen.run is not None:
        called = called.where(DECISIONS.c.run_id == chosen.run)
    if chosen.since is not None:
        since = ATTEMPTS.c.created_at >= chosen.since
        called = called.where(exists().where(ATTEMPTS.c.decision_id == DECISIONS.c.id, since))
    asking = called.cte("called")
    runs = select(asking.c.run_id).distinct()
    of_runs = RUNS.c.id.in_(runs) if chosen.run is None else RUNS.c.id == chosen.run
    parts += [
        scope.in_(select(literal("request:") + asking.c.id)),
        exists().where(of_runs, _of_run(scope)),
    ]
    return or_(*parts)


def _of_payers(scope: Any, since: int | None) -> ColumnElement[bool]:
    """The budgets of keys: what they may spend all told, and on the days since."""
    ours: ColumnElement[bool] = scope.startswith("payer:")
    if since is None:
        return ours
    date = func.substr(scope, func.length(scope) - len(_date(since)) + 1)
    return and_(ours, or_(~scope.like("payer:%:%"), date >= _date(since)))


def _of_run(scope: Any) -> ColumnElement[bool]:
    """Whether a scope is that of a run, or of one of its agents."""
    agents = literal("agent:") + RUNS.c.id + literal(":")
    return or_(
        scope == literal(run_scope("")) + RUNS.c.id,
        func.substr(scope, 1, func.length(agents)) == agents,
    )


def _date(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / SECOND, UTC).date().isoformat()
