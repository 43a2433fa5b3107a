"""What the ledger says of this moment: what waits, what was answered of late, what it costs.

Open decisions are counted up to a limit, and what is recent is found by its id, which begins with
the time; paid calls have an index of their own. What grows with the ledger is one count alone, that
of all decisions by state; it reads an index and no decision.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, and_, case, func, select

from ledger.calls import INTENT, UNKNOWN
from ledger.clock import SECOND
from ledger.database import reading
from ledger.run_sums import ones
from ledger.tables import TABLES
from ledger.tables.decisions import PAID
from ledger.workers import ALIVE_US
from routing.decision import State

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
WORKERS = TABLES.tables["worker"]

WINDOW_US = 60 * SECOND
"""What counts as of late."""
PACE_US = 15 * 60 * SECOND
"""What the spending of an hour is reckoned from."""
DAY_US = 24 * 3600 * SECOND
MOST_OPEN = 50_000
"""Open decisions of a state that are counted."""
MOST_RECENT = 20_000
"""Attempts that are looked at, the newest."""
SHOWN_US = 20 * ALIVE_US
"""How long a worker that is not heard of any more is still shown."""


@dataclass(frozen=True)
class Waiting:
    """Decisions of a lane that are not settled.

    ``oldest_us`` is since when the oldest of those waits that a worker may take by now.
    """

    lane: str
    queued: int = 0
    running: int = 0
    oldest_us: int | None = None


@dataclass(frozen=True)
class Recent:
    """Attempts of a lane within the window."""

    lane: str
    answered: int
    failed: int
    judged: int
    passed: int
    tokens_out: int
    cost_micros: int


@dataclass(frozen=True)
class Sign:
    """A worker's last sign of life."""

    name: str
    lane: str
    host: str
    pid: int
    state: str
    started_us: int
    heartbeat_us: int
    figures: dict[str, float]

    def alive(self, now: int) -> bool:
        """Whether it was heard of lately."""
        return now - self.heartbeat_us < ALIVE_US


@dataclass(frozen=True)
class Spent:
    """Micro-dollars of calls, and of those of which nobody knows whether they were served."""

    micros: int = 0
    unknown: int = 0
    unknown_micros: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.micros + other.micros,
            self.unknown + other.unknown,
            self.unknown_micros + other.unknown_micros,
        )


@dataclass(frozen=True)
class Pulse:
    """One look. ``window_us`` is the time that ``recent`` covers; ``unchecked_us`` is when the
    oldest answer came that waits for the quality check."""

    at: int
    states: dict[str, int]
    waiting: tuple[Waiting, ...]
    capped: bool
    """Whether more waits than was counted, on whatever lane."""
    unchecked_us: int | None
    recent: tuple[Recent, ...]
    window_us: int
    decided: int
    """Decisions that a model tried within the window."""
    climbed: int
    """Those of them that had gone beyond their first lane."""
    signs: tuple[Sign, ...] = field(default=())


def take_pulse(engine: Engine, now: int) -> Pulse:
    """Look once.

    Raises:
        SQLAlchemyError: the ledger does not answer, or is of another version.
    """
    with reading(engine) as connection:
        since, recent = _recent(connection, now)
        waiting, capped = _waiting(connection, now)
        decided, climbed = _climbed(connection, since)
        return Pulse(
            at=now,
            states=_states(connection),
            waiting=waiting,
            capped=capped,
            unchecked_us=_unchecked(connection),
            recent=recent,
            window_us=max(now - since, 1),
            decided=decided,
            climbed=climbed,
            signs=_signs(connection, now),
        )


def first_id(time_us: int) -> str:
    """No id that was made at ``time_us`` or later is smaller (UUIDv7 begins with milliseconds)."""
    return f"{time_us // 1000:012x}"


def spent(engine: Engine, since: int, until: int, lanes: Collection[str]) -> Spent:
    """What calls on ``lanes`` cost that were begun between two times."""
    if not lanes:
        return Spent()
    columns = ATTEMPTS.c
    unknown = columns.outcome == UNKNOWN
    query = select(
        func.coalesce(func.sum(columns.cost_micros), 0), ones(unknown),
        func.coalesce(func.sum(case((unknown, columns.estimated_micros), else_=0)), 0),
    ).where(
        PAID, columns.id >= first_id(since), columns.id < first_id(until), columns.lane.in_(lanes)
    )  # fmt: skip
    with reading(engine) as connection:
        micros, count, estimated = connection.execute(query).one()
    return Spent(int(micros), int(count), int(estimated))


class Books:
    """What was spent today, added up anew only for the last quarter of an hour.

    Calls are booked when they end, which is minutes after they began; older ones stand.
    """

    def __init__(self, engine: Engine, lanes: Collection[str]) -> None:
        self._engine = engine
        self._lanes = lanes
        self._day = self._until = -1
        self._older = Spent()

    def look(self, now: int) -> tuple[Spent, int]:
        """What today (UTC) came to, and micro-dollars an hour at the pace of late."""
        day = now - now % DAY_US
        if day != self._day:
            self._day = self._until = day
            self._older = Spent()
        settled = max(self._until, now - PACE_US)
        self._older += spent(self._engine, self._until, settled, self._lanes)
        self._until = settled
        recent = late = spent(self._engine, settled, now + SECOND, self._lanes)
        if settled != now - PACE_US:  # just after midnight
            late = spent(self._engine, now - PACE_US, now + SECOND, self._lanes)
        today = self._older + recent
        return today, late.micros * 3600 * SECOND // PACE_US


def _states(connection: Connection) -> dict[str, int]:
    query = select(DECISIONS.c.state, func.count()).group_by(DECISIONS.c.state)
    return {state: number for state, number in connection.execute(query)}  # noqa: C416


def _waiting(connection: Connection, now: int) -> tuple[tuple[Waiting, ...], bool]:
    found: dict[str, dict[str, Any]] = {}
    capped = False
    columns = DECISIONS.c
    since = case((columns.not_before > columns.queued_at, columns.not_before),
                 else_=columns.queued_at)  # fmt: skip
    for state, name in ((State.QUEUED, "queued"), (State.RUNNING, "running")):
        some = (
            select(columns.lane, since.label("since"), columns.not_before)
            .where(columns.state == state.value)
            .limit(MOST_OPEN)
            .subquery()
        )
        oldest = func.min(case((some.c.not_before <= now, some.c.since)))
        query = select(some.c.lane, func.count().label("n"), oldest.label("oldest"))
        rows = connection.execute(query.group_by(some.c.lane)).all()
        capped |= sum(row.n for row in rows) == MOST_OPEN
        for row in rows:
            values = found.setdefault(row.lane, {"lane": row.lane})
            values[name] = row.n
            if state is State.QUEUED:
                values["oldest_us"] = row.oldest
    return tuple(Waiting(**values) for _, values in sorted(found.items())), capped


def _unchecked(connection: Connection) -> int | None:
    answered = (
        select(DECISIONS.c.id)
        .where(DECISIONS.c.state == State.ANSWERED.value)
        .limit(MOST_RECENT // 10)
        .subquery()
    )
    last = (
        select(func.max(ATTEMPTS.c.created_at).label("at"))
        .join(answered, answered.c.id == ATTEMPTS.c.decision_id)
        .group_by(ATTEMPTS.c.decision_id)
        .subquery()
    )
    found: int | None = connection.execute(select(func.min(last.c.at))).scalar_one()
    return found


def _recent(connection: Connection, now: int) -> tuple[int, tuple[Recent, ...]]:
    """From when on, and what each lane did since."""
    columns = ATTEMPTS.c
    names = ("lane", "created_at", "outcome", "passed", "tokens_out", "cost_micros")
    some = (
        select(*(columns[name] for name in names))
        .where(columns.id >= first_id(now - WINDOW_US), columns.outcome != INTENT)
        .order_by(columns.id.desc())
        .limit(MOST_RECENT)
        .subquery()
    )
    answered = some.c.outcome == "answered"
    query = select(
        some.c.lane, func.count().label("n"), func.min(some.c.created_at).label("first"),
        ones(answered).label("answered"), ones(some.c.passed.is_not(None)).label("judged"),
        ones(some.c.passed.is_(True)).label("passed"),
        func.sum(some.c.tokens_out).label("tokens"), func.sum(some.c.cost_micros).label("cost"),
    ).group_by(some.c.lane)  # fmt: skip
    rows = connection.execute(query.order_by(some.c.lane)).all()
    full = sum(row.n for row in rows) == MOST_RECENT
    since = min(row.first for row in rows) if full else now - WINDOW_US
    return since, tuple(
        Recent(r.lane, r.answered, r.n - r.answered, r.judged, r.passed, int(r.tokens), int(r.cost))
        for r in rows
    )


def _climbed(connection: Connection, since: int) -> tuple[int, int]:
    columns = ATTEMPTS.c
    some = (
        select(columns.decision_id)
        .where(columns.id >= first_id(since))
        .order_by(columns.id.desc())
        .limit(MOST_RECENT)
        .subquery()
    )
    once = select(some.c.decision_id).distinct().subquery()
    query = select(func.count(), ones(DECISIONS.c.climbs > 0)).join(
        once, and_(once.c.decision_id == DECISIONS.c.id, DECISIONS.c.propensity.is_(None))
    )
    decided, climbed = connection.execute(query.select_from(DECISIONS)).one()
    return int(decided), int(climbed)


def _signs(connection: Connection, now: int) -> tuple[Sign, ...]:
    query = (
        select(*WORKERS.c)
        .where(WORKERS.c.heartbeat_at > now - SHOWN_US)
        .order_by(WORKERS.c.lane, WORKERS.c.name, WORKERS.c.host)
    )
    return tuple(
        Sign(r.name, r.lane, r.host, r.pid, r.state, r.started_at, r.heartbeat_at,
             _figures(r.stats))
        for r in connection.execute(query)
    )  # fmt: skip


def _figures(stats: str) -> dict[str, float]:
    """What a worker counts; it may tell other things, too."""
    told = json.loads(stats)
    return {name: value for name, value in told.items() if isinstance(value, int | float)}
