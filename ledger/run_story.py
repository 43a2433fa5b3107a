"""How a run went, for pages that show it: over time, by latency, hop by hop, how sure it was.

Everything is grouped by the database, so that it stays small however many decisions there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Function,
    Over,
    and_,
    case,
    exists,
    func,
    or_,
    select,
)

from ledger.database import reading
from ledger.run_sums import ATTEMPTS, DECISIONS, NOT_KNOWN, of_run, ones, quantiles
from ledger.tables import TABLES
from routing.decision import Status

LABELS = TABLES.tables["label"]
BINS = 48
"""Of the time that a run took."""
EDGES_US = tuple(round(10 ** (2 + step / 5)) for step in range(36))
"""Upper ends of the bins of latency, five a decade from 0.1 ms to 1,000 s; one more is above."""
CONFIDENCES = 10
"""Bins of stated probability."""
MOST_HOPS = 6
"""Places in a plan that are told apart; later ones count as the last."""
SHARES = (50, 95, 99)


@dataclass(frozen=True)
class Settled:
    """Decisions that settled within one bin of time. ``lane`` answered, if any did."""

    bin: int
    lane: str | None
    status: str
    count: int


@dataclass(frozen=True)
class LaneLatency:
    """How long attempts of a lane took. ``bins`` counts those below each of ``EDGES_US`` and not
    below the one before, then the rest; quantiles are milliseconds by percentage."""

    lane: str
    bins: tuple[int, ...]
    inference_ms: dict[int, float]
    waiting_ms: dict[int, float]


@dataclass(frozen=True)
class Flow:
    """Decisions that went from one place to the next: from asking, over lanes, to their ending.

    Places are ``(hop, name)``: hop 0 is asking, hop -1 an ending, others count lanes from 1.
    """

    source: tuple[int, str]
    target: tuple[int, str]
    count: int


@dataclass(frozen=True)
class Reliability:
    """Decisions of which it is known whether they are right, with probabilities in one bin."""

    bin: int
    count: int
    right: int
    stated: float
    """The mean of the probabilities that were stated."""


@dataclass(frozen=True)
class RunStory:
    """How a run went. Times are microseconds since 1970."""

    begins: int
    ends: int
    settled: tuple[Settled, ...]
    latency: tuple[LaneLatency, ...]
    flows: tuple[Flow, ...]
    reliability: tuple[Reliability, ...]


def run_story(engine: Engine, run_id: str) -> RunStory:
    """The story of one run."""
    with reading(engine) as connection:
        begins, ends = _span(connection, run_id)
        return RunStory(
            begins=begins,
            ends=ends,
            settled=_over_time(connection, run_id, begins, ends),
            latency=_latency(connection, run_id),
            flows=(*_hops(connection, run_id), *_untried(connection, run_id)),
            reliability=_reliability(connection, run_id),
        )


def _span(connection: Connection, run_id: str) -> tuple[int, int]:
    query = select(func.min(DECISIONS.c.created_at), func.max(DECISIONS.c.settled_at))
    begins, ends = connection.execute(query.where(of_run(run_id))).one()
    return begins or 0, ends or begins or 0


def _over_time(connection: Connection, run_id: str, begins: int, ends: int) -> tuple[Settled, ...]:
    columns = DECISIONS.c
    place = (columns.settled_at - begins) * BINS // (ends - begins + 1)
    # What settles while the page is made, and clocks that disagree, stay inside.
    place = case((place < 0, 0), (place >= BINS, BINS - 1), else_=place)
    query = (
        select(place.label("bin"), columns.answer_lane, columns.status, func.count().label("n"))
        .where(of_run(run_id), columns.settled_at.is_not(None))
        .group_by(place, columns.answer_lane, columns.status)
        .order_by(place, columns.answer_lane, columns.status)
    )
    rows = connection.execute(query)
    return tuple(Settled(int(r.bin), r.answer_lane, r.status or "", r.n) for r in rows)


def _latency(connection: Connection, run_id: str) -> tuple[LaneLatency, ...]:
    columns = ATTEMPTS.c
    inside = case(
        *((columns.inference_us < edge, place) for place, edge in enumerate(EDGES_US)),
        else_=len(EDGES_US),
    )
    query = (
        select(columns.lane, inside.label("bin"), func.count().label("n"))
        .join(DECISIONS, DECISIONS.c.id == columns.decision_id)
        .where(DECISIONS.c.run_id == run_id, columns.outcome.not_in(NOT_KNOWN))
        .group_by(columns.lane, inside)
    )
    counts: dict[str, list[int]] = {}
    for row in connection.execute(query):
        counts.setdefault(row.lane, [0] * (len(EDGES_US) + 1))[row.bin] = row.n
    inference = quantiles(connection, run_id, "inference_us", SHARES, by_lane=True)
    waiting = quantiles(connection, run_id, "waiting_us", SHARES, by_lane=True)
    return tuple(
        LaneLatency(lane, tuple(bins), inference.get(lane, {}), waiting.get(lane, {}))
        for lane, bins in sorted(counts.items())
    )


def _hops(connection: Connection, run_id: str) -> list[Flow]:
    """From lane to lane in the order of their first attempts, and from the last to the ending."""
    columns = ATTEMPTS.c
    visits = (
        select(columns.decision_id, columns.lane, func.min(columns.id).label("at"))
        .join(DECISIONS, DECISIONS.c.id == columns.decision_id)
        .where(of_run(run_id))
        .group_by(columns.decision_id, columns.lane)
        .subquery()
    )

    def along(function: Function[Any]) -> Over[Any]:
        return function.over(partition_by=visits.c.decision_id, order_by=visits.c.at)

    walked = select(
        visits.c.decision_id, visits.c.lane,
        along(func.row_number()).label("hop"),
        along(func.lag(visits.c.lane)).label("before"),
        along(func.lead(visits.c.lane)).label("after"),
    ).subquery()  # fmt: skip
    hop = case((walked.c.hop > MOST_HOPS, MOST_HOPS), else_=walked.c.hop)
    come_from = case((walked.c.hop > MOST_HOPS, MOST_HOPS), else_=walked.c.hop - 1)
    ended = func.coalesce(DECISIONS.c.status, DECISIONS.c.state)
    ending = case((walked.c.after.is_(None), ended))
    query = (
        select(hop.label("hop"), come_from.label("come_from"), walked.c.before, walked.c.lane,
               ending.label("ending"), func.count().label("n"))
        .join(DECISIONS, DECISIONS.c.id == walked.c.decision_id)
        .group_by(hop, come_from, walked.c.before, walked.c.lane, ending)
        .order_by(hop, walked.c.before, walked.c.lane, ending)
    )  # fmt: skip
    found: dict[tuple[tuple[int, str], tuple[int, str]], int] = {}
    for row in connection.execute(query):
        here = (row.hop, row.lane)
        come = (0, "asked") if row.before is None else (row.come_from, row.before)
        found[come, here] = found.get((come, here), 0) + row.n
        if row.ending is not None:
            found[here, (-1, row.ending)] = found.get((here, (-1, row.ending)), 0) + row.n
    return [Flow(source, target, count) for (source, target), count in found.items()]


def _untried(connection: Connection, run_id: str) -> list[Flow]:
    """What settled without any attempt, as from the cache, or still waits."""
    ended = func.coalesce(DECISIONS.c.status, DECISIONS.c.state)
    tried = exists().where(ATTEMPTS.c.decision_id == DECISIONS.c.id)
    query = select(ended.label("ended"), func.count().label("n")).where(of_run(run_id), ~tried)
    rows = connection.execute(query.group_by(ended).order_by(ended))
    return [Flow((0, "asked"), (-1, row.ended), row.n) for row in rows]


def _reliability(connection: Connection, run_id: str) -> tuple[Reliability, ...]:
    """By the asker's own rules, or where it has none by labels; one that says wrong decides."""
    columns = DECISIONS.c
    said = (
        select(LABELS.c.decision_id, LABELS.c.lane,
               func.min(case((LABELS.c.correct, 1), else_=0)).label("right"))
        .join(DECISIONS, DECISIONS.c.id == LABELS.c.decision_id)
        .where(DECISIONS.c.run_id == run_id)
        .group_by(LABELS.c.decision_id, LABELS.c.lane)
        .subquery()
    )  # fmt: skip
    place = case(
        *((columns.p_answer < (n + 1) / CONFIDENCES, n) for n in range(CONFIDENCES - 1)),
        else_=CONFIDENCES - 1,
    )
    by_rule: ColumnElement[bool] = and_(
        columns.expected.is_not(None), columns.answer == columns.expected
    )
    by_label = and_(columns.expected.is_(None), said.c.right == 1)
    query = (
        select(place.label("bin"), func.count().label("n"),
               ones(or_(by_rule, by_label)).label("right"),
               func.avg(columns.p_answer).label("stated"))
        .outerjoin(said, and_(said.c.decision_id == columns.id,
                              said.c.lane == columns.answer_lane))
        .where(of_run(run_id), columns.p_answer.is_not(None), columns.answer.is_not(None),
               columns.status != Status.CANCELLED.value,
               or_(columns.expected.is_not(None), said.c.right.is_not(None)))
        .group_by(place)
        .order_by(place)
    )  # fmt: skip
    rows = connection.execute(query)
    return tuple(Reliability(r.bin, r.n, int(r.right), float(r.stated)) for r in rows)


def expected_error(bins: Sequence[Reliability]) -> float | None:
    """The expected calibration error: the gap between stated and found, weighted by count."""
    total = sum(one.count for one in bins)
    if not total:
        return None
    return sum(abs(one.stated * one.count - one.right) for one in bins) / total
