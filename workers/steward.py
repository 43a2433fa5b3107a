"""The steward: publishes what was left unsent, revives what nobody is at, ends what is overdue."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from config.settings import Settings
from ledger import calls, lanes, outbox, sweeping
from ledger.clock import SECOND, Clock
from ledger.lanes import Standing
from ledger.metrics import totals
from ledger.metrics.totals import known_kinds
from ledger.rulings import Followers
from ledger.workers import hold_office, leave_office, served_lanes
from workers.learning import Learning
from workers.publishing import Publisher

log = logging.getLogger(__name__)

OFFICE = "steward"
ROUND_S = 1.0
LOOK_AT_LANES_US = 30 * SECOND
FOLD_EVERY_US = 10 * SECOND
"""Readers add up what is not folded: a longer time costs them, a shorter one writers."""
FOLDS = 10
"""Times two thousand transactions' counts in one round."""
RELAYS = 20
"""Times a hundred messages in one round."""
UNSENT_AFTER_US = 3 * SECOND
"""A message is published by whoever wrote it; only an older one has been orphaned."""


class Steward:
    """One round of sweeping, done by whichever process holds the office."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine,
        publisher: Publisher,
        holder: str,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher
        self._holder = holder
        self._clock = clock
        # A call of a decision that was cancelled or has expired may still bring its price.
        longest = max((m.timeout_s for m in settings.catalog.models.values()), default=0.0)
        self._grace_us = int((longest + settings.lease_s) * SECOND)
        self._unserved: dict[str, int] = {}
        self._look_at_lanes = 0
        self._fold_at = 0
        self._cursors: dict[str, str] = {}
        self._learning = Learning(engine, settings.catalog)

    def round(self) -> bool:
        """Sweep once if the office is ours; tells whether it was.

        Each duty is done whatever becomes of the others: one bad row must not stop them all.
        """
        lease_us = int(self._settings.leader_lease_s * SECOND)
        now = self._clock()
        if not hold_office(self._engine, OFFICE, self._holder, moment=now, lease_us=lease_us):
            self._unserved.clear()
            return False
        duties = (
            self._relay, self._revive, self._expire, self._book, self._move_on, self._strand,
            self._fold,
        )  # fmt: skip
        for duty in (*duties, self._learning.round):
            try:
                duty(now)
            except Exception as error:
                log.warning("a duty of the steward failed: %s: %s", type(error).__name__, error)
        return True

    def _revive(self, now: int) -> None:
        stale_before = now - int(self._settings.stale_after_s * SECOND)
        self._publisher.publish(
            sweeping.republish(self._engine, now=now, stale_before=stale_before)
        )

    def _expire(self, now: int) -> None:
        self._publisher.publish(sweeping.expire(self._engine, now))

    def _book(self, now: int) -> None:
        calls.close_orphans(self._engine, now=now, grace_us=self._grace_us)

    def _fold(self, now: int) -> None:
        """Add what was counted to the totals."""
        if now >= self._fold_at:
            self._fold_at = now + FOLD_EVERY_US
            kinds = known_kinds(self._settings.catalog)
            for _ in range(FOLDS):
                if totals.fold(self._engine, kinds) < totals.FOLD_AT_ONCE:
                    return

    def _move_on(self, now: int) -> None:
        """Let decisions climb from lanes out of service to those that are served."""
        out = lanes.standings(self._engine)
        left = {lane: why for lane, why in out.items() if why is not Standing.DRAINING}
        if not left:
            self._cursors.clear()
            return
        usable = served_lanes(self._engine, now - LOOK_AT_LANES_US) - set(out)
        for lane, why in left.items():
            followers, self._cursors[lane] = sweeping.move_on(
                self._engine, lane, usable, f"lane {lane} is {why}", now,
                after=self._cursors.get(lane, ""),
            )  # fmt: skip
            self._publisher.publish(followers)

    def _strand(self, now: int) -> None:
        """Move decisions on from lanes that have had no worker for as long as this steward saw.

        Workers that are only about to start, with a stack or a model, are waited for.
        """
        if now < self._look_at_lanes:
            return
        self._look_at_lanes = now + LOOK_AT_LANES_US
        patience = int(self._settings.unserved_after_s * SECOND)
        served = served_lanes(self._engine, now - LOOK_AT_LANES_US)
        empty = sweeping.waiting_lanes(self._engine) - served
        self._unserved = {lane: self._unserved.get(lane, now) for lane in empty}
        for lane, since in self._unserved.items():
            if now - since > patience:
                self._publisher.publish(sweeping.strand(self._engine, lane, served, now))

    def _relay(self, now: int) -> None:
        """Send what was left unsent, as long as the broker takes it."""
        for _ in range(RELAYS):
            orphans = outbox.unsent(self._engine, now - UNSENT_AFTER_US)
            if not orphans:
                return
            if not self._publisher.publish(Followers(messages=orphans)):
                return

    def resign(self) -> None:
        """Leave the office to the next."""
        leave_office(self._engine, OFFICE, self._holder)


class StewardStep(bootsteps.StartStopStep):
    """Runs the steward on the worker's own timer: no thread, so forks stay safe."""

    requires = ("celery.worker.components:Timer",)
    steward: Steward | None = None

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._entry: Any = None

    def start(self, worker: Any) -> None:
        """Begin the rounds."""
        self._entry = worker.timer.call_repeatedly(ROUND_S, self._round)

    def stop(self, worker: Any) -> None:
        """End the rounds and leave the office."""
        if self._entry is not None:
            self._entry.cancel()
        if self.steward is not None:
            try:
                self.steward.resign()
            except DBAPIError as error:
                log.warning("office not left: %s", error.orig)

    def _round(self) -> None:
        if self.steward is None:
            return
        try:
            self.steward.round()
        except Exception:  # one bad row must not end all rounds
            log.exception("the steward's round failed")
