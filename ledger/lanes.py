"""Lanes in and out of service, and the supervised workers: what all machines are to know.

A lane without a row serves. :func:`closed_lanes` is what plans go by, :class:`ClosedLanes` what the
quality check does, :func:`fleet_view` what shows the fleet (``uptier fleet status``, metrics,
``uptier top``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Engine, delete, exists, func, select

from config.catalog import Catalog
from config.load import AbsentLane
from ledger import providers
from ledger.clock import SECOND, Clock
from ledger.database import insert_or_replace, reading, writing
from ledger.tables import TABLES
from ledger.transitions import QUALITY_QUEUE
from ledger.workers import ALIVE_US
from routing.decision import State

SUPERVISED_US = 30 * SECOND
"""A supervisor that has not written for so long counts as gone."""

LANES = TABLES.tables["lane_standing"]
SUPERVISED = TABLES.tables["supervised"]
WORKERS = TABLES.tables["worker"]
DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]


class Standing(StrEnum):
    """Why a lane takes no new decisions."""

    DOWN = "down"
    """Its workers were started again in vain."""
    DRAINING = "draining"
    """An operator emptied it: what waits on it is answered, then its workers end."""
    DRAINED = "drained"
    LENT = "lent"
    """All its cards are lent to other work."""


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class LaneView(_View):
    """A lane: whether it serves, who serves it, what waits. Ages are seconds."""

    lane: str
    standing: Standing | None
    """``None``: in service."""
    reason: str
    since_s: float | None
    """How long it has been out of service."""
    workers_ready: int
    """On all machines, supervised or not."""
    waiting: int
    """Decisions that are due and queued on it."""
    oldest_s: float | None
    running: int


class WorkerView(_View):
    """A supervised process, a worker or the broker, on any machine."""

    supervisor: str
    name: str
    lane: str
    """Empty for the broker."""
    state: str
    """``starting``, ``ready``, ``waiting`` (to be started again), ``stopping``, ``failed`` (given
    up), or ``unwatched`` where its supervisor is gone."""
    placement: str
    pid: int | None
    restarts: int
    """Since its supervisor started."""
    reason: str
    """Why it was started again, or given up, last."""
    seen_s: float


class FleetView(_View):
    """All lanes and supervised processes that the ledger knows."""

    lanes: tuple[LaneView, ...]
    workers: tuple[WorkerView, ...]


def closed_lanes(engine: Engine, catalog: Catalog, now: int) -> dict[str, AbsentLane]:
    """Lanes that must not be called now, each with its reason: those out of service, and those
    whose provider's breaker is open."""
    closed = providers.closed_lanes(engine, catalog, now)
    return {**closed, **out_of_service(engine, catalog)}


def out_of_service(engine: Engine, catalog: Catalog) -> dict[str, AbsentLane]:
    """The catalog's lanes that take no new decisions, each with its reason."""
    with reading(engine) as connection:
        rows = connection.execute(select(*LANES.c)).all()
    return {
        row.lane: AbsentLane(row.lane, catalog.lanes[row.lane].tier, _words(row), down=True)
        for row in rows
        if row.lane in catalog.lanes
    }


class ClosedLanes:
    """:func:`closed_lanes` for who asks with every message: breakers as they are now, lanes out of
    service as they were a second ago at most.

    What goes to such a lane meanwhile goes on like all that waits there: the steward sees to it.
    """

    def __init__(self, engine: Engine, catalog: Catalog, clock: Clock) -> None:
        self._engine = engine
        self._catalog = catalog
        self._clock = clock
        self._out: dict[str, AbsentLane] = {}
        self._read_at: int | None = None

    def find(self) -> dict[str, AbsentLane]:
        """The lanes, each with its reason."""
        now = self._clock()
        if self._read_at is None or not 0 <= now - self._read_at < SECOND:
            self._out = out_of_service(self._engine, self._catalog)
            self._read_at = now
        return {**providers.closed_lanes(self._engine, self._catalog, now), **self._out}


def take_out(
    engine: Engine, lane: str, standing: Standing, reason: str, supervisor: str, now: int
) -> None:
    """Take a lane out of service, or change why it is."""
    row = {
        "lane": lane, "standing": standing.value, "reason": reason, "supervisor": supervisor,
        "since": now,
    }  # fmt: skip
    with writing(engine) as connection:
        statement = insert_or_replace(
            connection, LANES, ["lane"], ["standing", "reason", "supervisor", "since"],
            where=LANES.c.standing != standing.value,
        )  # fmt: skip
        connection.execute(statement.values(**row))


def put_back(engine: Engine, lanes: Collection[str]) -> None:
    """Let lanes serve again."""
    if lanes:
        with writing(engine) as connection:
            connection.execute(delete(LANES).where(LANES.c.lane.in_(list(lanes))))


def forget_supervisor(engine: Engine, supervisor: str) -> None:
    """Remove a supervisor's processes, and put back the lanes that it took out of service."""
    with writing(engine) as connection:
        connection.execute(delete(LANES).where(LANES.c.supervisor == supervisor))
        connection.execute(delete(SUPERVISED).where(SUPERVISED.c.supervisor == supervisor))


def standings(engine: Engine) -> dict[str, Standing]:
    """The lanes out of service."""
    with reading(engine) as connection:
        rows = connection.execute(select(LANES.c.lane, LANES.c.standing)).all()
    return {row.lane: Standing(row.standing) for row in rows}


def ready_elsewhere(engine: Engine, lane: str, tokens: Collection[str], now: int) -> bool:
    """Whether a worker other than those of ``tokens`` serves a lane, on any machine."""
    query = select(func.count()).where(
        WORKERS.c.lane == lane, WORKERS.c.state == "ready",
        WORKERS.c.heartbeat_at > now - ALIVE_US, WORKERS.c.token.not_in(list(tokens)),
    )  # fmt: skip
    with reading(engine) as connection:
        return bool(connection.execute(query).scalar())


def open_work(engine: Engine, lane: str, now: int) -> int:
    """Decisions that are due on a lane, queued or running."""
    return sum(waiting + running for waiting, running, _ in _loads(engine, now, [lane]).values())


def waiting(engine: Engine, now: int) -> dict[str, int]:
    """Due and queued decisions of each lane; under ``quality``, answers that wait for a check."""
    found = {lane: queued for lane, (queued, _, _) in _loads(engine, now).items()}
    children = DECISIONS.alias("children")
    asked = children.c.parent_id == DECISIONS.c.id
    waits = exists().where(asked, children.c.state != State.SETTLED.value)
    query = select(func.count()).where(DECISIONS.c.state == State.ANSWERED.value, ~waits)
    with reading(engine) as connection:
        found[QUALITY_QUEUE] = int(connection.execute(query).scalar() or 0)
    return found


def write_supervised(
    engine: Engine, supervisor: str, rows: Iterable[Mapping[str, Any]], now: int
) -> None:
    """Replace what the ledger says of a supervisor's processes.

    A row has ``name``, ``lane``, ``state``, ``placement``, ``pid``, ``restarts`` and ``reason``.
    """
    with writing(engine) as connection:
        old = {
            row.name: row
            for row in connection.execute(
                select(*SUPERVISED.c).where(SUPERVISED.c.supervisor == supervisor)
            )
        }
        connection.execute(delete(SUPERVISED).where(SUPERVISED.c.supervisor == supervisor))
        _forget_gone(connection, now)
        new = [
            {**row, "supervisor": supervisor, "seen_at": now,
             "changed_at": _changed_at(old.get(row["name"]), row, now)}
            for row in rows
        ]  # fmt: skip
        if new:
            connection.execute(SUPERVISED.insert(), new)


def supervised(engine: Engine, now: int) -> tuple[WorkerView, ...]:
    """All supervised processes, on any machine."""
    query = select(*SUPERVISED.c).order_by(SUPERVISED.c.supervisor, SUPERVISED.c.name)
    with reading(engine) as connection:
        return tuple(_worker(row, now) for row in connection.execute(query))


def fleet_view(engine: Engine, lanes: Collection[str], now: int) -> FleetView:
    """The lanes (those named, and all others that the ledger knows) and all supervised processes.

    Four cheap reads; at ``now`` in microseconds.
    """
    with reading(engine) as connection:
        rows = {row.lane: row for row in connection.execute(select(*LANES.c))}
        alive = WORKERS.c.heartbeat_at > now - ALIVE_US
        ready = select(WORKERS.c.lane, func.count().label("many")).where(
            alive, WORKERS.c.state == "ready"
        )
        serving = {r.lane: r.many for r in connection.execute(ready.group_by(WORKERS.c.lane))}
    loads = _loads(engine, now)
    names = dict.fromkeys([*lanes, *sorted({*rows, *loads} - set(lanes))])
    return FleetView(
        lanes=tuple(
            _lane(name, rows.get(name), serving.get(name, 0), loads.get(name, (0, 0, None)), now)
            for name in names
        ),
        workers=supervised(engine, now),
    )


def _loads(
    engine: Engine, now: int, lanes: Collection[str] | None = None
) -> dict[str, tuple[int, int, int | None]]:
    """Due and queued decisions of each lane, running ones, and since when the oldest is queued."""
    due = (DECISIONS.c.state == State.QUEUED.value) & (DECISIONS.c.not_before <= now)
    busy = DECISIONS.c.state == State.RUNNING.value
    query = select(
        DECISIONS.c.lane, DECISIONS.c.state, func.count().label("many"),
        func.min(DECISIONS.c.queued_at).label("oldest"),
    ).where(due | busy).group_by(DECISIONS.c.lane, DECISIONS.c.state)  # fmt: skip
    if lanes is not None:
        query = query.where(DECISIONS.c.lane.in_(list(lanes)))
    found: dict[str, tuple[int, int, int | None]] = {}
    with reading(engine) as connection:
        for row in connection.execute(query):
            waiting, running, oldest = found.get(row.lane, (0, 0, None))
            if row.state == State.QUEUED.value:
                found[row.lane] = (row.many, running, row.oldest)
            else:
                found[row.lane] = (waiting, row.many, oldest)
    return found


def _words(row: Any) -> str:
    if row.standing == Standing.DOWN:
        return f"lane {row.lane} is down: {row.reason}"
    return f"lane {row.lane} is {row.standing}: {row.reason}" if row.reason else (
        f"lane {row.lane} is {row.standing}"
    )  # fmt: skip


def _changed_at(old: Any, row: Mapping[str, Any], now: int) -> int:
    same = old is not None and all(
        getattr(old, name) == row[name] for name in ("state", "pid", "restarts")
    )
    return int(old.changed_at) if same else now


def _forget_gone(connection: Connection, now: int) -> None:
    connection.execute(delete(SUPERVISED).where(SUPERVISED.c.seen_at < now - 20 * SUPERVISED_US))


def _lane(name: str, row: Any, ready: int, load: tuple[int, int, int | None], now: int) -> LaneView:
    waiting, running, oldest = load
    return LaneView(
        lane=name,
        standing=None if row is None else Standing(row.standing),
        reason="" if row is None else row.reason,
        since_s=None if row is None else (now - row.since) / SECOND,
        workers_ready=ready,
        waiting=waiting,
        oldest_s=None if oldest is None else max(0.0, (now - oldest) / SECOND),
        running=running,
    )


def _worker(row: Any, now: int) -> WorkerView:
    gone = row.seen_at < now - SUPERVISED_US
    return WorkerView(
        supervisor=row.supervisor,
        name=row.name,
        lane=row.lane,
        state="unwatched" if gone else row.state,
        placement=row.placement,
        pid=row.pid,
        restarts=row.restarts,
        reason=row.reason,
        seen_s=max(0.0, (now - row.seen_at) / SECOND),
    )
