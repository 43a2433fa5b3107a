"""How lanes fared with kinds of late: counted by the steward, read where plans are made."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from typing import Any

from sqlalchemy import Engine, case, delete, func, insert, select
from sqlalchemy.exc import DBAPIError

from config.catalog import Catalog
from ledger.calibrations import REREAD_US
from ledger.clock import Clock
from ledger.database import reading, writing
from ledger.labels import labelled
from ledger.tables import TABLES
from routing.learned import Fared, Learned, learn

ROWS = TABLES.tables["lane_history"]
DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
RECENT = 20_000
"""Attempts that count, the newest of all runs; what is long past is forgotten."""

log = logging.getLogger(__name__)


def count(engine: Engine, now: int) -> None:
    """Count anew over the newest attempts. Audits do not count, nor do answers of the cache.

    An answer that passed and was found wrong stands for as many as the inverse of its chance to be
    found (Horvitz and Thompson 1952); for itself alone where nobody knows that chance.
    """
    wrong = _found_wrong(engine)
    with reading(engine) as connection:
        counted = connection.execute(_tallies()).all()
    rows = [
        {
            "kind": r.kind,
            "lane": r.lane,
            "tried": r.tried,
            "good": max(0, int(r.passed) - round(wrong[r.kind, r.lane])),
            "cost_micros": int(r.cost),
            "inference_us": int(r.took),
            "updated_at": now,
        }
        for r in counted
    ]
    with writing(engine) as connection:
        connection.execute(delete(ROWS))
        if rows:
            connection.execute(insert(ROWS), rows)


def _tallies() -> Any:
    """By kind and lane what the newest attempts came to, and what they took."""
    recent = (
        select(
            DECISIONS.c.kind, ATTEMPTS.c.lane, ATTEMPTS.c.passed, ATTEMPTS.c.cost_micros,
            ATTEMPTS.c.inference_us,
        )
        .join(DECISIONS, DECISIONS.c.id == ATTEMPTS.c.decision_id)
        .where(ATTEMPTS.c.passed.is_not(None), DECISIONS.c.propensity.is_(None))
        .order_by(ATTEMPTS.c.id.desc())
        .limit(RECENT)
        .subquery()
    )  # fmt: skip
    return select(
        recent.c.kind, recent.c.lane, func.count().label("tried"),
        func.sum(case((recent.c.passed, 1), else_=0)).label("passed"),
        func.sum(recent.c.cost_micros).label("cost"),
        func.sum(recent.c.inference_us).label("took"),
    ).group_by(recent.c.kind, recent.c.lane)  # fmt: skip


def _found_wrong(engine: Engine) -> defaultdict[tuple[str, str], float]:
    """By kind and lane how many answers passed and were wrong, as many as each stands for."""
    wrong: defaultdict[tuple[str, str], float] = defaultdict(float)
    for one in labelled(engine, among=RECENT):
        if one.passed and not one.correct:
            wrong[one.kind, one.lane] += 1 / (one.propensity or 1.0)
    return wrong


class LaneHistory:
    """What was learned of lanes, read again at most once a minute. Safe to share between threads.

    While the ledger is away, what was read before counts.
    """

    def __init__(self, engine: Engine, catalog: Catalog, clock: Clock) -> None:
        self._engine = engine
        self._catalog = catalog
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Learned | None = None
        self._read_at: int | None = None

    def learned(self) -> Learned | None:
        """What plans go by; ``None`` where the profile does not learn or nothing is known."""
        if not self._catalog.routing.learn:
            return None
        due = self._read_at is None or self._clock() - self._read_at >= REREAD_US
        if due and self._lock.acquire(blocking=False):
            try:
                self._read_at = self._clock()
                self._found = learn(self._read(), self._catalog)
            except DBAPIError as error:
                log.warning("the history of lanes could not be read: %s", error.orig)
            finally:
                self._lock.release()
        return self._found

    def _read(self) -> list[Fared]:
        with reading(self._engine) as connection:
            return [_tried(row) for row in connection.execute(select(*ROWS.c))]


def _tried(row: Any) -> Fared:
    return Fared(row.kind, row.lane, row.tried, row.good, row.cost_micros, row.inference_us)
