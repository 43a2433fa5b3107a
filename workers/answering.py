"""Answers decisions of one lane: claim, cache, backend, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Sequence

from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import Cancelled, DeadlinePassed
from config.settings import Settings
from ledger import lifecycle
from ledger.calibrations import Calibrations
from ledger.clock import SECOND, Clock
from ledger.lanes import closed_lanes
from ledger.outbox import new_id
from ledger.patience import patiently
from ledger.records import Claimed, Tried
from ledger.sweeping import EXPIRED
from routing.decision import Status
from workers.backends.base import Backend, figures_of
from workers.caching import Memory
from workers.guard import Guard
from workers.leases import LeaseKeeper, Watched
from workers.paying import Payer
from workers.publishing import Publisher
from workers.questions import Questions
from workers.solitude import Solitude
from workers.telling import Teller

log = logging.getLogger(__name__)


class Answerer:
    """Serves one lane with one backend."""

    def __init__(
        self,
        settings: Settings,
        lane: str,
        *,
        engine: Engine,
        backend: Backend,
        fingerprint: str,
        publisher: Publisher,
        clock: Clock,
        fingerprint_of: Callable[[str], str | None] | None = None,
        teller: Teller | None = None,
    ) -> None:
        self._settings = settings
        self._catalog: Catalog = settings.catalog
        self._lane = lane
        self._engine = engine
        self._backend = backend
        self._fingerprint = fingerprint
        self._publisher = publisher
        self._clock = clock
        self._solitude = Solitude()
        self._recorded = 0
        self._teller = teller
        self._leases = LeaseKeeper(engine, clock, settings.lease_s)
        self._memory = Memory(
            self._catalog, engine=engine, clock=clock, fingerprint_of=fingerprint_of
        )
        calibrations = Calibrations(engine, self._catalog.lanes[lane].model, fingerprint, clock)
        self._questions = Questions(
            self._catalog, lane, backend=backend, fingerprint=fingerprint, clock=clock,
            calibrations=calibrations, closed=self._closed_lanes, teller=teller,
        )  # fmt: skip
        self._guard = Guard(self._catalog, lane, self._questions)
        self._payer = None
        if self._catalog.is_paid(lane):
            self._payer = Payer(
                self._catalog, lane, engine=engine, questions=self._questions,
                publisher=publisher, clock=clock,
            )  # fmt: skip

    def answer(self, lane: str, ids: Sequence[str]) -> None:
        """Answer those of ``ids`` that wait on this lane; the rest is somebody else's.

        What an earlier worker may have died of is answered with nothing beside it: if it kills
        this one too, it takes no neighbours along.
        """
        if lane != self._lane:
            log.error("a message for lane %s came to a worker of %s", lane, self._lane)
            return
        token = new_id()
        lease_us = int(self._settings.lease_s * SECOND)
        # Asked before it is claimed: a claim that waits beside poison would be counted as well.
        suspect = len(ids) == 1 and patiently(
            lifecycle.is_suspect, self._engine, ids[0], self._clock()
        )
        with self._solitude.alone() if suspect else self._solitude.company():
            claimed = patiently(
                lambda: lifecycle.claim(
                    self._engine, self._lane, ids, token=token, now=self._clock(),
                    lease_us=lease_us,
                )
            )  # fmt: skip
            with self._leases.keeping(token, [c.id for c in claimed]) as watched:
                self._answer(token, claimed, watched)

    def _answer(self, token: str, claimed: list[Claimed], watched: Watched) -> None:
        if self._payer is not None:
            claimed = self._payer.resume(token, claimed)
        claimed = self._turn_away(token, claimed)
        claimed = self._bury_poison(token, claimed)
        claimed = self._serve_cached(token, claimed)
        if claimed and self._payer is not None:
            self._payer.call(token, claimed, watched)
        elif claimed:
            self._call(token, claimed, watched)

    def figures(self) -> dict[str, float]:
        """What the backend did since it was opened, by name, if it counts; and ``recorded``, the
        attempts that were written down."""
        return {**figures_of(self._backend), "recorded": self._recorded}

    def close(self) -> None:
        """Give back the backend and stop renewing."""
        if self._payer is not None:
            self._payer.close()
        self._leases.close()
        self._backend.close()
        if self._teller is not None:
            self._teller.close()

    def _turn_away(self, token: str, claimed: list[Claimed]) -> list[Claimed]:
        refusals = self._guard.refusals(claimed)
        if not refusals:
            return claimed
        self._publisher.publish(
            patiently(lifecycle.turn_away, self._engine, token, refusals, self._clock())
        )
        turned_away = {refusal.id for refusal in refusals}
        return [c for c in claimed if c.id not in turned_away]

    def _closed_lanes(self) -> Container[str]:
        return patiently(closed_lanes, self._engine, self._catalog, self._clock())

    def _bury_poison(self, token: str, claimed: list[Claimed]) -> list[Claimed]:
        limit = self._settings.max_deliveries
        poison = [c for c in claimed if c.deliveries > limit]
        if poison:
            reason = f"delivered {limit} times without an outcome; its workers may have died of it"
            followers = patiently(
                lifecycle.bury,
                self._engine, token, [c.id for c in poison], reason, self._clock(), Status.DEAD,
            )  # fmt: skip
            self._publisher.publish(followers)
        return [c for c in claimed if c.deliveries <= limit]

    def _serve_cached(self, token: str, claimed: list[Claimed]) -> list[Claimed]:
        hits = self._memory.serve(claimed, self._lane, self._fingerprint)
        if hits:
            self._publisher.publish(
                patiently(lifecycle.settle_cached, self._engine, token, hits, self._clock())
            )
        served = {hit.id for hit in hits}
        return [c for c in claimed if c.id not in served]

    def _call(self, token: str, claimed: list[Claimed], watched: Watched) -> None:
        waiting = {c.id: c for c in claimed}
        begun = self._clock()
        done: list[Tried] = []
        last = time.monotonic()
        for completion in self._questions.completions(
            [self._questions.request(c, watched[c.id]) for c in claimed]
        ):
            one = waiting.pop(completion.id)
            if isinstance(completion.error, Cancelled):
                continue  # it is settled, or another worker's; there is nothing to record
            if isinstance(completion.error, DeadlinePassed):
                self._expire(token, one.id)
                continue
            done.append(self._questions.tried(one, completion, begun))
            if time.monotonic() - last >= self._catalog.lanes[self._lane].record_every_s:
                self._record(token, done)
                done, last = [], time.monotonic()
        self._record(token, done)

    def _expire(self, token: str, decision_id: str) -> None:
        """Settle what its backend stopped at its deadline as the steward would: it is no attempt,
        and no other lane is asked."""
        self._publisher.publish(
            patiently(
                lifecycle.bury,
                self._engine, token, [decision_id], EXPIRED, self._clock(), Status.EXPIRED,
            )
        )  # fmt: skip

    def _record(self, token: str, tried: list[Tried]) -> None:
        if tried:
            self._recorded += len(tried)
            self._publisher.publish(
                patiently(lambda: lifecycle.record(self._engine, token, tried, self._clock()))
            )
