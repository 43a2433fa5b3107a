"""What a run's reports are made of, summed up by the database however many decisions it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, exists, func, or_, select

from ledger.cache import was_served
from ledger.calls import INTENT, UNKNOWN
from ledger.roles import role
from ledger.tables import TABLES
from ledger.usage import Role
from routing.decision import State, Status

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
PREFIXES = TABLES.tables["prefix"]

NOT_KNOWN = (INTENT, UNKNOWN)
"""Outcomes of calls that may have been served; an intent is one that is under way."""
ANSWERED = "answered"
CHARS_PER_TOKEN = 4
"""For answers from the cache, whose tokens nobody counted."""


def of_run(run_id: str) -> ColumnElement[bool]:
    """The decisions that a run's reports count: all but its audits."""
    return and_(DECISIONS.c.run_id == run_id, DECISIONS.c.propensity.is_(None))


def questions(run_id: str) -> ColumnElement[bool]:
    """Those of them that their asker wanted to know, not Uptier because of others."""
    return and_(of_run(run_id), role() == Role.QUESTION.value)


def ones(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """The number of rows in a group for which the condition holds; one that is null does not."""
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def decision_groups(connection: Connection, run_id: str) -> Sequence[Any]:
    """Decisions by kind, way of ending, lane and whether they climbed.

    ``ended`` is the status or, while there is none, the state; ``known`` counts those of which the
    asker says what is right, ``right`` these whose answer is that.
    """
    columns = DECISIONS.c
    ended = func.coalesce(columns.status, columns.state)
    settled = columns.state == State.SETTLED.value
    known = and_(settled, columns.expected.is_not(None))
    nothing = or_(columns.answer.is_(None), columns.answer == "")
    # Of what was cancelled nobody wanted an answer any more.
    wanted = or_(columns.status.is_(None), columns.status != Status.CANCELLED.value)
    climbed = case((columns.climbs > 0, 1), else_=0)
    query = select(
        columns.kind, ended.label("ended"), columns.answer_lane, climbed.label("climbed"),
        func.count().label("number"),
        ones(~settled).label("open"), ones(was_served()).label("served"),
        ones(and_(settled, nothing, wanted)).label("empty"),
        ones(known).label("known"),
        ones(and_(known, columns.answer == columns.expected)).label("right"),
        func.min(columns.created_at).label("first"), func.max(columns.settled_at).label("last"),
        func.coalesce(func.sum(columns.cost_micros), 0).label("cost"),
    )  # fmt: skip
    grouped = query.where(of_run(run_id)).group_by(
        columns.kind, ended, columns.answer_lane, climbed
    )
    return connection.execute(grouped).all()


def attempt_groups(connection: Connection, run_id: str) -> Sequence[Any]:
    """Attempts by lane and outcome, those of audits among them; ``unknown`` is the estimate of
    calls of which nobody knows whether they were served."""
    columns = ATTEMPTS.c

    def total(name: str) -> ColumnElement[int]:
        return func.coalesce(func.sum(columns[name]), 0).label(name)

    query = (
        select(
            columns.lane, columns.outcome, func.count().label("number"),
            ones(columns.passed.is_not(None)).label("judged"),
            ones(columns.passed.is_(True)).label("passed"),
            *map(total, ("tokens_in", "tokens_out", "tokens_cached", "cost_micros",
                         "estimated_micros")),
        )
        .join(DECISIONS, DECISIONS.c.id == columns.decision_id)
        .where(DECISIONS.c.run_id == run_id)
        .group_by(columns.lane, columns.outcome)
    )  # fmt: skip
    return connection.execute(query).all()


def quantiles(
    connection: Connection, run_id: str, name: str, shares: Sequence[int], by_lane: bool = False
) -> dict[str, dict[int, float]]:
    """Nearest-rank quantiles of a column of attempts that holds microseconds, in milliseconds.

    ``shares`` are percentages. The outer keys are lanes, or one empty name for all of them. Times
    of calls of which nobody knows whether they were served mean nothing and do not count.
    """
    group, value = ATTEMPTS.c.lane if by_lane else None, ATTEMPTS.c[name]
    ranked = (
        select(
            ATTEMPTS.c.lane, value.label("value"),
            func.row_number().over(partition_by=group, order_by=value).label("rank"),
            func.count().over(partition_by=group).label("size"),
        )
        .join(DECISIONS, DECISIONS.c.id == ATTEMPTS.c.decision_id)
        .where(DECISIONS.c.run_id == run_id, ATTEMPTS.c.outcome.not_in(NOT_KNOWN))
        .subquery()
    )  # fmt: skip
    wanted = [ranked.c.rank == (ranked.c.size * share + 99) // 100 for share in shares]
    found: dict[str, dict[int, float]] = {}
    for row in connection.execute(select(ranked).where(or_(*wanted))):
        for share in shares:
            if row.rank == (row.size * share + 99) // 100:
                found.setdefault(row.lane if by_lane else "", {})[share] = row.value / 1000
    return found


def last_tokens(connection: Connection, run_id: str) -> Sequence[Any]:
    """How many decisions have so many tokens ``tokens_in`` and ``tokens_out`` in their last
    answer; those that no model answered go by the characters of prompt and answer."""
    columns = ATTEMPTS.c
    last = (
        select(func.max(columns.id).label("id"))
        .join(DECISIONS, DECISIONS.c.id == columns.decision_id)
        .where(questions(run_id), columns.outcome == ANSWERED)
        .group_by(columns.decision_id)
        .subquery()
    )
    counted = (
        select(columns.tokens_in, columns.tokens_out, func.count().label("number"))
        .join(last, last.c.id == columns.id)
        .group_by(columns.tokens_in, columns.tokens_out)
    )
    return [*connection.execute(counted), *connection.execute(_guessed(run_id))]


def _guessed(run_id: str) -> Select[Any]:
    columns = DECISIONS.c
    prompt = func.length(columns.prompt) + func.coalesce(func.length(PREFIXES.c.text), 0)
    tokens_in = prompt // CHARS_PER_TOKEN
    tokens_out = func.coalesce(func.length(columns.answer), 0) // CHARS_PER_TOKEN + 1
    tried = exists().where(ATTEMPTS.c.decision_id == columns.id, ATTEMPTS.c.outcome == ANSWERED)
    return (
        select(
            tokens_in.label("tokens_in"), tokens_out.label("tokens_out"),
            func.count().label("number"),
        )
        .outerjoin(PREFIXES, PREFIXES.c.id == columns.prefix_id)
        .where(questions(run_id), ~tried)
        .group_by(tokens_in, tokens_out)
    )  # fmt: skip
