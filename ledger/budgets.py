"""What paid calls may cost: reserved before a call, settled after it, released without one.

Each step is one conditional UPDATE for each scope, so that no number of workers can overspend:
a reservation succeeds only where spent + reserved + its most stays within the limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Connection, Engine, or_, select, update

from config.auditing import Audit
from config.catalog import Catalog, CloudBudget
from ledger.clock import SECOND
from ledger.database import insert_or_ignore, reading
from ledger.records import Claimed
from ledger.tables import TABLES

BUDGETS = TABLES.tables["budget"]
LONGEST_NAME = 120
NO_AUDIT = Audit()


@dataclass(frozen=True)
class Bound:
    """A scope and what it may spend in micro-dollars and calls; ``None`` does not bind."""

    scope: str
    micros: int | None = None
    calls: int | None = None


@dataclass(frozen=True)
class Refused:
    """Why a call may not be made. ``waits`` means that calls in flight may free enough."""

    scope: str
    reason: str
    waits: bool


class BudgetUse(BaseModel):
    """A budget as reports show it; money in dollars. ``alert`` says that its mark is passed."""

    scope: str
    limit_usd: float | None
    spent_usd: float
    reserved_usd: float
    limit_calls: int | None
    calls: int
    used_share: float | None
    alert: bool


def bounds_of(
    budget: CloudBudget, claimed: Claimed, now: int, audit: Audit = NO_AUDIT
) -> tuple[Bound, ...]:
    """The budgets that a call for this decision draws on, in the order of their scopes.

    An audit is nobody's wish: it draws on the ``audit`` budget alone.
    """
    decision = claimed.decision
    today = _date(now)
    if claimed.audits:
        return (Bound(f"audit:{today}", _micros(audit.per_day_usd)),)
    day = today if decision.day is None else str(decision.day)
    own = decision.preferences.max_cost_usd
    request = own if own is not None else budget.per_request_usd
    # What the asker grants is for the decision with all that it asks others about its answer.
    whole = claimed.parent_id if own is not None and claimed.parent_id else claimed.id
    bounds = [
        Bound(run_scope(claimed.run_id), _micros(budget.per_run_usd)),
        Bound(f"day:{today}", _micros(budget.per_day_usd)),
        Bound(f"request:{whole}", _micros(request)),
    ]
    if decision.agent_id:
        scope = f"agent:{claimed.run_id}:{_short(decision.agent_id)}:{day}"
        bounds.append(Bound(scope, _micros(budget.usd_per_agent_day), budget.calls_per_agent_day))
    payer = decision.preferences.payer
    if payer is not None:
        bounds.append(Bound(payer_scope(payer.name), _micros(payer.budget_usd)))
        bounds.append(Bound(payer_scope(payer.name, now), _micros(payer.per_day_usd)))
    binding = [b for b in bounds if b.micros is not None or b.calls is not None]
    return tuple(sorted(binding, key=lambda b: b.scope))


def run_scope(run_id: str) -> str:
    """The name of a run's budget."""
    return f"run:{run_id}"


def payer_scope(name: str, now: int | None = None) -> str:
    """The name of a payer's budget: all told, or of the day of ``now``."""
    return f"payer:{name}" if now is None else f"payer:{name}:{_date(now)}"


def day_scopes(catalog: Catalog, now: int) -> dict[str, tuple[str, int | None]]:
    """The budgets of the day of ``now`` over everybody, each with its name and its limit in
    micro-dollars."""
    today = _date(now)
    return {
        f"day:{today}": ("day", _micros(catalog.cloud_budget.per_day_usd)),
        f"audit:{today}": ("audit", _micros(catalog.audit.per_day_usd)),
    }


def of_payers(now: int) -> ColumnElement[bool]:
    """The budgets of payers: all told, and of the day of ``now``."""
    scope = BUDGETS.c.scope
    # By the key's order as well: LIKE reads every row, and there is one for each paid request.
    near = (scope >= "payer") & (scope < "payes")
    dated = scope.like("payer:%:%")
    today = scope.endswith(f":{_date(now)}", autoescape=True)
    return near & scope.startswith(payer_scope(""), autoescape=True) & (~dated | today)


def reserve(connection: Connection, bounds: Sequence[Bound], micros: int) -> Refused | None:
    """Promise ``micros`` and one call in every scope, or in none and say which refused."""
    taken: list[str] = []
    for bound in sorted(bounds, key=lambda b: b.scope):  # one order, so that none deadlock
        if not _take(connection, bound, micros):
            release(connection, taken, micros)
            return _refusal(connection, bound, micros)
        taken.append(bound.scope)
    return None


def settle(connection: Connection, scopes: Iterable[str], reserved: int, spent: int) -> None:
    """Turn a reservation into what the call cost."""
    for scope in sorted(scopes):
        connection.execute(
            update(BUDGETS)
            .where(BUDGETS.c.scope == scope)
            .values(
                reserved_micros=BUDGETS.c.reserved_micros - reserved,
                spent_micros=BUDGETS.c.spent_micros + spent,
            )
        )


def release(connection: Connection, scopes: Iterable[str], reserved: int) -> None:
    """Give back a reservation whose call was not served."""
    for scope in sorted(scopes):
        connection.execute(
            update(BUDGETS)
            .where(BUDGETS.c.scope == scope)
            .values(reserved_micros=BUDGETS.c.reserved_micros - reserved, calls=BUDGETS.c.calls - 1)
        )


def usage(engine: Engine, run_id: str | None, alert_share: float, now: int) -> list[BudgetUse]:
    """The budgets of today, of payers and of a run; its agents' only past their alert mark."""
    today = _date(now)
    scopes: list[ColumnElement[bool]] = [BUDGETS.c.scope.in_((f"audit:{today}", f"day:{today}"))]
    scopes.append(of_payers(now))
    if run_id is not None:
        scopes.append(BUDGETS.c.scope == run_scope(run_id))
        scopes.append(BUDGETS.c.scope.startswith(f"agent:{run_id}:", autoescape=True))
    query = select(*BUDGETS.c).where(or_(*scopes)).order_by(BUDGETS.c.scope)
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    uses = [_use(row, alert_share) for row in rows]
    return [u for u in uses if u.alert or not u.scope.startswith("agent:")]


def _date(now: int) -> str:
    return datetime.fromtimestamp(now / SECOND, UTC).date().isoformat()


def _short(name: str) -> str:
    """A name that fits into a scope; long ones keep their start and a hash of the whole."""
    if len(name) <= LONGEST_NAME:
        return name
    return name[: LONGEST_NAME - 17] + "#" + hashlib.sha256(name.encode()).hexdigest()[:16]


def _take(connection: Connection, bound: Bound, micros: int) -> bool:
    columns = BUDGETS.c
    wanted = columns.spent_micros + columns.reserved_micros + micros
    statement = (
        update(BUDGETS)
        .where(columns.scope == bound.scope)
        .values(
            reserved_micros=columns.reserved_micros + micros,
            calls=columns.calls + 1,
            limit_micros=bound.micros,
            limit_calls=bound.calls,
        )
    )
    if bound.micros is not None:
        statement = statement.where(wanted <= bound.micros)
    if bound.calls is not None:
        statement = statement.where(columns.calls + 1 <= bound.calls)
    if connection.execute(statement).rowcount == 1:
        return True
    # The first call of a scope finds no row. Of several first calls one inserts it, and the others
    # wait for that; then each asks again.
    row = {"scope": bound.scope, "limit_micros": bound.micros, "limit_calls": bound.calls,
           "spent_micros": 0, "reserved_micros": 0, "calls": 0}  # fmt: skip
    connection.execute(insert_or_ignore(connection, BUDGETS, ["scope"]).values(**row))
    return connection.execute(statement).rowcount == 1


def _refusal(connection: Connection, bound: Bound, micros: int) -> Refused:
    row = connection.execute(select(*BUDGETS.c).where(BUDGETS.c.scope == bound.scope)).one()
    if bound.calls is not None and row.calls + 1 > bound.calls:
        reason = f"budget {bound.scope}: {row.calls} of {bound.calls} calls are made"
        return Refused(bound.scope, reason, waits=False)
    if bound.micros is None:
        return Refused(bound.scope, f"budget {bound.scope}: a call was given back just now", True)
    limit = bound.micros
    reason = (
        f"budget {bound.scope}: ${_dollars(row.spent_micros)} of ${_dollars(limit)} is spent, a "
        f"call may cost ${_dollars(micros)}"
    )
    return Refused(bound.scope, reason, waits=row.spent_micros + micros <= limit)


def _use(row: Any, alert_share: float) -> BudgetUse:
    limit, calls = row.limit_micros, row.limit_calls
    spent, reserved = row.spent_micros, row.reserved_micros
    made: int = row.calls
    shares = []
    if limit is not None:
        shares.append((spent + reserved) / limit if limit else 1.0)
    if calls is not None:
        shares.append(made / calls if calls else 1.0)
    used = max(shares, default=None)
    return BudgetUse(
        scope=row.scope,
        limit_usd=None if limit is None else limit / 1_000_000,
        spent_usd=spent / 1_000_000,
        reserved_usd=reserved / 1_000_000,
        limit_calls=calls,
        calls=made,
        used_share=used,
        alert=used is not None and used >= alert_share,
    )


def _micros(dollars: Decimal | None) -> int | None:
    if dollars is None:
        return None
    return int((dollars * 1_000_000).to_integral_value(ROUND_FLOOR))


def _dollars(micros: int) -> str:
    return f"{Decimal(micros) / 1_000_000:.6f}"
