"""Learnt policies in the ledger: which is in force, and why others ended.

One is in force at a time. It holds for what served when it was learnt: see ``routing/live.py``.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, delete, insert, select, true, update
from sqlalchemy.exc import DBAPIError

from config.settings import Settings
from ledger.cache import rests_on
from ledger.certificates import REREAD_US
from ledger.clock import Clock
from ledger.database import open_ledger, reading, writing
from ledger.patience import patiently
from ledger.tables import TABLES
from routing.certify import Scope
from routing.learnt import Learnt, from_json
from routing.live import Live

ROWS = TABLES.tables["policy"]
CACHE = TABLES.tables["cache_entry"]
EVERY = true()
TOLD = [column for column in ROWS.c if column.name != "document"]
"""What is read of a policy that is not gone by: its document may be large."""

log = logging.getLogger(__name__)


class Standing(StrEnum):
    """What has become of a policy."""

    IN_FORCE = "in_force"
    REPLACED = "replaced"
    LAPSED = "lapsed"
    RETIRED = "retired"


@dataclass(frozen=True)
class Kept:
    """A policy as the ledger keeps it, but for its document.

    ``labels`` are the rows that it was learnt from, ``starts`` the lane that each kind begins on.
    ``drift`` has the state of the test on a kind's stream of scores (routing/drift.py), ``seen``
    is the attempt up to which the streams were read.
    """

    run: str
    target: float
    delta: float
    labels: int
    starts: Mapping[str, str]
    served: tuple[Scope, ...]
    created_at: int
    drift: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seen: str = ""
    standing: Standing = Standing.IN_FORCE
    lapsed_at: int | None = None
    reason: str = ""
    id: int = 0


class PolicyState(BaseModel):
    """How the policy stands that came last, as status shows it."""

    run: str
    standing: Standing
    reason: str


def history(engine: Engine, standing: Standing | None = None) -> list[Kept]:
    """Policies of a standing, or all, the newest first."""
    query = select(*TOLD).order_by(ROWS.c.id.desc())
    if standing is not None:
        query = query.where(ROWS.c.standing == standing.value)
    with reading(engine) as connection:
        return [_value(row) for row in connection.execute(query)]


def in_force(engine: Engine) -> Kept | None:
    """The policy that holds now."""
    return next(iter(history(engine, Standing.IN_FORCE)), None)


def state(settings: Settings) -> PolicyState | None:
    """How the newest policy of a ledger stands; ``None`` if there never was one.

    Raises:
        SQLAlchemyError: the ledger does not answer or is of another version.
    """
    engine = open_ledger(settings)
    try:
        found = next(iter(history(engine)), None)
    finally:
        engine.dispose()
    if found is None:
        return None
    return PolicyState(run=found.run, standing=found.standing, reason=found.reason)


def store(engine: Engine, one: Kept, learnt: Learnt, now: int) -> int:
    """Put a policy in force in place of the one that is; its id.

    Answers that the cache has of its kinds on its lanes leave with it, for they were let pass by
    another rule.
    """
    with writing(engine) as connection:
        _end(connection, Standing.REPLACED, "replaced by a newer one", now)
        made = connection.execute(insert(ROWS).values(**_row(one, learnt))).inserted_primary_key
        _drop_cached(connection, one)
    return int(made[0]) if made else 0


def lapse(engine: Engine, one: Kept, reason: str, now: int) -> bool:
    """End a policy that holds no more; ``False`` if it had ended already."""
    with writing(engine) as connection:
        return _end(connection, Standing.LAPSED, reason, now, ROWS.c.id == one.id)


def retire(engine: Engine, now: int) -> bool:
    """End what is in force; ``False`` if nothing was."""
    with writing(engine) as connection:
        return _end(connection, Standing.RETIRED, "retired by command", now)


def recalibrated(connection: Connection, model: str, kinds: Sequence[str], now: int) -> None:
    """End the policy in force if it goes by probabilities that mean something else now."""
    for one in _standing(connection):
        if any(scope.model == model and scope.kind in kinds for scope in one.served):
            reason = f"the calibration of {model} changed"
            _end(connection, Standing.LAPSED, reason, now, ROWS.c.id == one.id)


def drop_late(engine: Engine, now: int) -> None:
    """Drop cached answers that were let pass by a policy after it had ended.

    Checkers read policies again once a minute only, so that some may have come since.
    """
    query = select(*TOLD).where(ROWS.c.lapsed_at > now - 3 * REREAD_US)
    with reading(engine) as connection:
        late = [_value(row) for row in connection.execute(query)]
    if not late:
        return
    with writing(engine) as connection:
        for one in late:
            since = one.lapsed_at or 0
            between = CACHE.c.created_at.between(since, since + 2 * REREAD_US)
            _drop_cached(connection, one, between)


def note_drift(engine: Engine, one: Kept, drift: Mapping[str, Any], seen: str) -> None:
    """Keep how far the tests on the streams of scores have come."""
    values = {"drift": json.dumps(drift), "seen": seen}
    with writing(engine) as connection:
        connection.execute(update(ROWS).where(ROWS.c.id == one.id).values(**values))


class Policies:
    """The policy in force, read again at most once a minute. Safe to share between threads.

    While the ledger is away, the one read before stays in force.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Live | None = None
        self._id: int | None = None
        self._read_at: int | None = None

    def find(self) -> Live | None:
        """The policy to go by, if there is one."""
        due = self._read_at is None or self._clock() - self._read_at >= REREAD_US
        if due and self._lock.acquire(blocking=self._read_at is None):
            try:
                self._read()
            finally:
                self._lock.release()
        return self._found

    def _read(self) -> None:
        if self._read_at is None:  # without it nothing may be planned or ruled on
            patiently(self._look)
        else:
            try:
                self._look()
            except DBAPIError as error:
                log.warning("the policy in force could not be read: %s", error.orig)
        self._read_at = self._clock()

    def _look(self) -> None:
        newest = select(ROWS.c.id).where(ROWS.c.standing == Standing.IN_FORCE.value)
        with reading(self._engine) as connection:
            found = connection.execute(newest.order_by(ROWS.c.id.desc()).limit(1)).scalar()
            if found == self._id:
                return
            row = connection.execute(select(*ROWS.c).where(ROWS.c.id == found)).first()
        self._found = None if row is None else _live(row)
        self._id = found


def _live(row: Any) -> Live | None:
    try:
        learnt = from_json(json.loads(row.document))
    except (ValueError, KeyError) as error:
        log.warning("policy %s is not gone by, it cannot be read: %s", row.id, error)
        return None
    return Live(learnt, frozenset(_value(row).served), row.run_id)


def _standing(connection: Connection, which: Any = EVERY) -> list[Kept]:
    query = select(*TOLD).where(ROWS.c.standing == Standing.IN_FORCE.value, which)
    return [_value(row) for row in connection.execute(query)]


def _end(
    connection: Connection, standing: Standing, reason: str, now: int, which: Any = EVERY
) -> bool:
    """End what is in force, and drop the cached answers that it let pass."""
    ending = _standing(connection, which)
    for one in ending:
        values = {"standing": standing.value, "reason": reason, "lapsed_at": now}
        connection.execute(update(ROWS).where(ROWS.c.id == one.id).values(**values))
        _drop_cached(connection, one)
    return bool(ending)


def _drop_cached(connection: Connection, one: Kept, which: Any = EVERY) -> None:
    lanes = sorted({scope.lane for scope in one.served})
    kinds = sorted({"", *(scope.kind for scope in one.served)})  # "": from before it was noted
    mine = rests_on(lanes) & CACHE.c.kind.in_(kinds)
    connection.execute(delete(CACHE).where(mine, which))


def _row(one: Kept, learnt: Learnt) -> dict[str, Any]:
    return {
        "run_id": one.run, "target": one.target, "delta": one.delta,
        "labels": one.labels, "document": json.dumps(learnt.as_json()),
        "served": json.dumps([asdict(scope) for scope in one.served]),
        "starts": json.dumps(dict(one.starts)), "standing": one.standing.value,
        "reason": one.reason, "drift": json.dumps(one.drift), "seen": one.seen,
        "created_at": one.created_at, "lapsed_at": one.lapsed_at,
    }  # fmt: skip


def _value(row: Any) -> Kept:
    return Kept(
        row.run_id, row.target, row.delta, row.labels, json.loads(row.starts),
        tuple(Scope(**scope) for scope in json.loads(row.served)), row.created_at,
        json.loads(row.drift), row.seen, Standing(row.standing), row.lapsed_at, row.reason, row.id,
    )  # fmt: skip
