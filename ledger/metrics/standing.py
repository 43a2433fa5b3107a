"""What stands in the ledger at this moment: queues, outbox, budgets, breakers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, case, func, select

from config.catalog import Catalog
from ledger.budgets import BUDGETS, day_scopes, of_payers, payer_scope
from ledger.cache import ENTRIES
from ledger.clock import SECOND
from ledger.lanes import LANES, SUPERVISED, Standing
from ledger.metrics import catalog as metrics
from ledger.metrics.sample import Sample, sample
from ledger.outbox import OUTBOX
from ledger.providers import BREAKER_STATES, standings
from ledger.tables import TABLES
from ledger.transitions import OPEN
from ledger.workers import LEADERS
from routing.decision import State

DECISIONS = TABLES.tables["decision"]
WAITING, DELAYED = "waiting", "delayed"
SERVING = "serving"
STATES = (WAITING, DELAYED, State.RUNNING.value, State.ANSWERED.value)
STEWARD_OFFICE = "steward"


def standing(connection: Connection, catalog: Catalog, now: int) -> Iterator[Sample]:
    """All of it, from one open view of the ledger."""
    yield from _queues(connection, catalog, now)
    yield from _lost(connection, catalog, now)
    yield from _outbox(connection, now)
    yield from _budgets(connection, catalog, now)
    yield from _lanes(connection, catalog)
    yield from _breakers(connection, catalog, now)
    held = select(func.count()).where(LEADERS.c.office == STEWARD_OFFICE, LEADERS.c.until >= now)
    yield sample(metrics.STEWARD, value=connection.execute(held).scalar_one())
    entries = select(func.count()).select_from(ENTRIES)
    yield sample(metrics.CACHE_ENTRIES, value=connection.execute(entries).scalar_one())


def _queues(connection: Connection, catalog: Catalog, now: int) -> Iterator[Sample]:
    """Depth and age of every lane; answered by the index over what is open alone."""
    columns = DECISIONS.c
    delayed = columns.not_before > now
    since = case((columns.not_before > columns.queued_at, columns.not_before),
                 else_=columns.queued_at)  # fmt: skip
    query = (
        select(columns.lane, columns.state, delayed, func.count(), func.min(since))
        .where(columns.state.in_(OPEN))
        .group_by(columns.lane, columns.state, delayed)
    )
    depth: dict[tuple[str, str], int] = dict.fromkeys(
        ((lane, state) for lane in catalog.lanes for state in STATES), 0
    )
    oldest: dict[str, int] = dict.fromkeys(catalog.lanes, now)
    for lane, state, is_delayed, found, first in connection.execute(query):
        if state == State.QUEUED.value:
            state = DELAYED if is_delayed else WAITING
        depth[lane, state] = depth.get((lane, state), 0) + found
        if state == WAITING:
            oldest[lane] = first
    for (lane, state), found in depth.items():
        yield sample(metrics.OPEN, lane, state, value=found)
    for lane, first in oldest.items():
        yield sample(metrics.OLDEST, lane, value=max(0, now - first) / SECOND)


def _lost(connection: Connection, catalog: Catalog, now: int) -> Iterator[Sample]:
    columns = DECISIONS.c
    query = (
        select(columns.lane, func.count())
        .where(columns.state == State.RUNNING.value, columns.lease_until < now)
        .group_by(columns.lane)
    )
    found = {lane: count for lane, count in connection.execute(query)}  # noqa: C416
    for lane, count in (dict.fromkeys(catalog.lanes, 0) | found).items():
        yield sample(metrics.LOST, lane, value=count)


def _outbox(connection: Connection, now: int) -> Iterator[Sample]:
    query = select(func.count(), func.min(OUTBOX.c.created_at))
    count, first = connection.execute(query).one()
    yield sample(metrics.OUTBOX, value=count)
    yield sample(metrics.OUTBOX_LAG, value=0 if first is None else max(0, now - first) / SECOND)


def _budgets(connection: Connection, catalog: Catalog, now: int) -> Iterator[Sample]:
    """Today's, and those of payers: their names are an operator's. Runs and agents are not told:
    they come and go."""
    names = day_scopes(catalog, now)
    query = select(*BUDGETS.c).where(BUDGETS.c.scope.in_(names) | of_payers(now))
    rows = {row.scope: row for row in connection.execute(query)}
    for scope, (name, limit) in names.items():
        row = rows.pop(scope, None)
        yield from _budget(name, limit if row is None else row.limit_micros, row)
    for scope, row in rows.items():
        name, _, day = scope.removeprefix(payer_scope("")).partition(":")
        yield from _budget(f"payer_day:{name}" if day else f"payer:{name}", row.limit_micros, row)


def _budget(name: str, limit: int | None, row: Any) -> Iterator[Sample]:
    spent, reserved = (0, 0) if row is None else (row.spent_micros, row.reserved_micros)
    yield sample(metrics.BUDGET_SPENT, name, value=spent)
    yield sample(metrics.BUDGET_RESERVED, name, value=reserved)
    if limit is not None:
        yield sample(metrics.BUDGET_LIMIT, name, value=limit)
        yield sample(metrics.BUDGET_LEFT, name, value=limit - spent - reserved)


def _lanes(connection: Connection, catalog: Catalog) -> Iterator[Sample]:
    """Which lanes are in service, and what had to be started again to keep them there."""
    out = {
        row.lane: row.standing for row in connection.execute(select(LANES.c.lane, LANES.c.standing))
    }
    for lane in catalog.lanes:
        for state in (SERVING, *Standing):
            yield sample(
                metrics.LANE_STATE, lane, state, value=float(out.get(lane, SERVING) == state)
            )
    columns = SUPERVISED.c
    restarts = func.coalesce(func.sum(columns.restarts), 0)
    query = select(columns.name, columns.lane, restarts).group_by(columns.name, columns.lane)
    for name, lane, count in connection.execute(query):
        yield sample(metrics.RESTARTS, name, lane, value=int(count))


def _breakers(connection: Connection, catalog: Catalog, now: int) -> Iterator[Sample]:
    for provider in standings(connection, catalog, now):
        for state in BREAKER_STATES:
            is_it = float(provider.breaker == state)
            yield sample(metrics.BREAKER, provider.name, state, value=is_it)
        yield sample(metrics.FAILURES, provider.name, value=provider.failures)
