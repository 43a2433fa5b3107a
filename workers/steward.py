"""The steward: publishes what was left unsent, revives what nobody is at, ends what is overdue."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from config.settings import Settings
from ledger import calls, lifecycle, outbox
from ledger.clock import SECOND, Clock
from ledger.transitions import Followers
from ledger.workers import hold_office, leave_office
from workers.publishing import Publisher

log = logging.getLogger(__name__)

OFFICE = "steward"
ROUND_S = 1.0
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

    def round(self) -> bool:
        """Sweep once if the office is ours; tells whether it was."""
        lease_us = int(self._settings.leader_lease_s * SECOND)
        if not hold_office(self._engine, OFFICE, self._holder, lease_us):
            return False
        now = self._clock()
        self._relay(now)
        stale_before = now - int(self._settings.stale_after_s * SECOND)
        self._publisher.publish(
            lifecycle.republish(self._engine, now=now, stale_before=stale_before)
        )
        self._publisher.publish(lifecycle.expire(self._engine, now))
        calls.close_orphans(self._engine, now=now, grace_us=self._grace_us)
        return True

    def _relay(self, now: int) -> None:
        """Send what was left unsent, but no longer than the office is safely ours."""
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
        except DBAPIError as error:
            log.warning("steward's round failed: %s", error.orig)
