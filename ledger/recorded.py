"""The decisions of a run as they were asked, and two runs laid side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from ledger.calls import INTENT
from ledger.database import reading
from ledger.records import asked, output_of
from ledger.runs import RUNS, RunInfo, run_of
from ledger.transitions import ATTEMPTS, DECISIONS, PREFIXES, chunks
from routing.classification import CLASSIFICATION_KIND
from routing.critique import CRITIC_KIND
from routing.decision import Decision, Output, State

PAGE = 500
"""Decisions that are read at once."""
OWN_KINDS = (CRITIC_KIND, CLASSIFICATION_KIND)
"""Asked by Uptier itself, about other decisions."""


@dataclass(frozen=True)
class Told:
    """What a run said to one of its decisions. Money in micro-dollars, times in microseconds.

    ``cost_micros`` and ``inference_us`` include what its critic or panel took; ``took_us`` is from
    submission to settlement.
    """

    id: str
    key: str
    kind: str
    status: str
    answer: str
    lane: str | None
    cost_micros: int
    inference_us: int
    took_us: int


@dataclass(frozen=True)
class Pair:
    """One decision in both runs."""

    expected: str | None
    output: Output
    before: Told
    after: Told


def recorded(
    engine: Engine, run_id: str, kinds: Sequence[str] = (), limit: int | None = None
) -> Iterator[Decision]:
    """What was asked of a run, as it was submitted, in that order; ``kinds`` narrow it.

    Left out are the questions about other decisions: critics, panels, audits, classifications.
    """
    given, last = 0, ""
    while limit is None or given < limit:
        size = PAGE if limit is None else min(PAGE, limit - given)
        query = (
            select(*DECISIONS.c, PREFIXES.c.text.label("system"))
            .outerjoin(PREFIXES, PREFIXES.c.id == DECISIONS.c.prefix_id)
            .where(asked_by_askers(run_id), DECISIONS.c.id > last)
            .order_by(DECISIONS.c.id)
            .limit(size)
        )
        if kinds:
            query = query.where(DECISIONS.c.kind.in_(kinds))
        with reading(engine) as connection:
            rows = connection.execute(query).all()
        if not rows:
            return
        yield from (asked(row, row.system or "") for row in rows)
        given, last = given + len(rows), rows[-1].id


def count_recorded(engine: Engine, run_id: str, kinds: Sequence[str] = ()) -> dict[str, int]:
    """How many decisions were asked of a run, by kind."""
    query = (
        select(DECISIONS.c.kind, func.count().label("n"))
        .where(asked_by_askers(run_id))
        .group_by(DECISIONS.c.kind)
    )
    if kinds:
        query = query.where(DECISIONS.c.kind.in_(kinds))
    with reading(engine) as connection:
        return {row.kind: row.n for row in connection.execute(query)}


def unfinished(
    engine: Engine, mode: str, profile: str | None = None, config: dict[str, Any] | None = None
) -> RunInfo | None:
    """The latest unfinished run of that mode; ``profile`` and ``config`` narrow it."""
    query = (
        select(*RUNS.c)
        .where(RUNS.c.mode == mode, RUNS.c.finished_at.is_(None))
        .order_by(RUNS.c.created_at.desc(), RUNS.c.id.desc())
        .limit(PAGE)
    )
    if profile is not None:
        query = query.where(RUNS.c.profile == profile)
    with reading(engine) as connection:
        found = [run_of(row) for row in connection.execute(query)]
    return next((run for run in found if config is None or run.config == config), None)


def pairs(engine: Engine, before: str, after: str) -> Iterator[Pair]:
    """The decisions that are settled in both runs, in the order of the second one."""
    last = ""
    while True:
        query = (
            select(*DECISIONS.c)
            .where(asked_by_askers(after), DECISIONS.c.id > last)
            .order_by(DECISIONS.c.id)
            .limit(PAGE)
        )
        with reading(engine) as connection:
            later = connection.execute(query).all()
            if not later:
                return
            earlier = _by_key(connection, before, [row.key for row in later])
            ids = [row.id for row in (*later, *earlier.values())]
            costs, times = _with_children(connection, ids)
        for row in later:
            old = earlier.get(row.key)
            if old is None or row.state != State.SETTLED.value:
                continue
            yield Pair(
                expected=old.expected,
                output=output_of(old.output),
                before=_told(old, costs, times),
                after=_told(row, costs, times),
            )
        last = later[-1].id


def asked_by_askers(run_id: str) -> Any:
    """The run's decisions but for the questions about other decisions."""
    return (
        (DECISIONS.c.run_id == run_id)
        & DECISIONS.c.parent_id.is_(None)
        & DECISIONS.c.propensity.is_(None)
        & DECISIONS.c.kind.not_in(OWN_KINDS)
    )


def _by_key(connection: Connection, run_id: str, keys: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for chunk in chunks(keys):
        query = select(*DECISIONS.c).where(
            DECISIONS.c.run_id == run_id,
            DECISIONS.c.key.in_(chunk),
            DECISIONS.c.state == State.SETTLED.value,
        )
        found.update((row.key, row) for row in connection.execute(query))
    return found


def _with_children(
    connection: Connection, ids: Sequence[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """What decisions cost and how long models worked on them, with the questions about them."""
    asker = func.coalesce(DECISIONS.c.parent_id, DECISIONS.c.id)
    costs: dict[str, int] = {}
    times: dict[str, int] = {}
    for chunk in chunks(ids):
        query = (
            select(
                asker.label("asker"),
                func.sum(ATTEMPTS.c.cost_micros).label("cost"),
                func.sum(ATTEMPTS.c.inference_us).label("took"),
            )
            .join(DECISIONS, DECISIONS.c.id == ATTEMPTS.c.decision_id)
            .where(
                DECISIONS.c.id.in_(chunk) | DECISIONS.c.parent_id.in_(chunk),
                DECISIONS.c.propensity.is_(None),
                ATTEMPTS.c.outcome != INTENT,
            )
            .group_by(asker)
        )
        for row in connection.execute(query):
            costs[row.asker], times[row.asker] = int(row.cost), int(row.took)
    return costs, times


def _told(row: Any, costs: dict[str, int], times: dict[str, int]) -> Told:
    return Told(
        id=row.id,
        key=row.key,
        kind=row.kind,
        status=row.status,
        answer=row.answer or "",
        lane=row.answer_lane,
        cost_micros=costs.get(row.id, 0),
        inference_us=times.get(row.id, 0),
        took_us=row.settled_at - row.created_at,
    )
