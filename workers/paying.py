"""Paid calls of one lane: each is intended on record, made, and booked by itself."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import BackendError
from ledger import lifecycle
from ledger.budgets import bounds_of
from ledger.calls import Begun, Intended, begin, close_lost
from ledger.clock import SECOND, Clock
from ledger.patience import patiently
from ledger.providers import Health, Verdict
from ledger.records import Claimed, Tried, plan_of
from ledger.rulings import Refusal
from routing.decision import Status
from routing.policy import next_hop
from routing.retries import LONGEST_WISH_S
from routing.wishes import privacy_of
from workers.backends.base import Completion, Request
from workers.cancellation import CancellationToken
from workers.leases import Watched
from workers.publishing import Publisher
from workers.questions import Questions

LONGEST_WAIT_US = 600 * SECOND
"""A decision without any other lane waits so long for an open breaker, and no longer."""


class Payer:
    """Makes the paid calls of one lane, as many at once as the lane has slots."""

    def __init__(
        self,
        catalog: Catalog,
        lane: str,
        *,
        engine: Engine,
        questions: Questions,
        publisher: Publisher,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._lane_name = lane
        self._lane = catalog.lanes[lane]
        self._engine = engine
        self._questions = questions
        self._publisher = publisher
        self._clock = clock
        self._provider = catalog.lane_model(lane).provider
        self._policy = catalog.providers[self._provider] if self._provider else None
        self._pool = ThreadPoolExecutor(self._lane.slots, thread_name_prefix="paying")

    def resume(self, token: str, claimed: Sequence[Claimed]) -> list[Claimed]:
        """Book calls that an earlier holder left open; the decisions that may be asked."""
        if not claimed:
            return []
        going_on, followers = patiently(
            close_lost,
            self._engine,
            token,
            claimed,
            repeats=self._lane.repeat_unknown_charges,
            max_attempts=self._lane.max_attempts,
            lost_call=self._questions.lost_call,
            now=self._clock(),
        )
        self._publisher.publish(followers)
        return going_on

    def call(self, token: str, claimed: Sequence[Claimed], watched: Watched) -> None:
        """Ask all, each by itself; returns when every one is booked, put off or turned away."""
        waiting = [self._pool.submit(self._call, token, one, watched[one.id]) for one in claimed]
        faults = [error for error in (w.exception() for w in waiting) if error is not None]
        if faults:
            raise faults[0]

    def close(self) -> None:
        """Let no further call begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, token: str, claimed: Claimed, cancellation: CancellationToken) -> None:
        if cancellation.is_set():
            return  # before anything is reserved for it
        request = self._questions.request(claimed, cancellation)
        intended = self._intended(claimed, request)
        begun = patiently(lambda: begin(self._engine, token, intended, self._clock()))
        if begun.attempt_id is None:
            self._move_on(token, claimed, begun)
            return
        started = self._clock()
        for completion in self._questions.completions([request]):
            tried = self._questions.tried(claimed, completion, started, begun.attempt_id)
            self._book(token, tried, completion)

    def _intended(self, claimed: Claimed, request: Request) -> Intended:
        return Intended(
            id=claimed.id,
            model=self._questions.model,
            fingerprint=self._questions.fingerprint,
            most_micros=self._questions.most_micros(request),
            bounds=bounds_of(
                self._catalog.cloud_budget, claimed, self._clock(), self._catalog.audit
            ),
            provider=self._provider,
            policy=self._policy,
        )

    def _book(self, token: str, tried: Tried, completion: Completion) -> None:
        health = self._health(completion.error)
        followers = patiently(
            lambda: lifecycle.record(self._engine, token, [tried], self._clock(), health)
        )
        self._publisher.publish(followers)

    def _health(self, error: BackendError | None) -> tuple[Health, ...]:
        if self._provider is None or self._policy is None:
            return ()
        if error is not None and error.ours:
            return ()
        if error is None:
            return (Health(self._provider, self._policy, Verdict.WELL),)
        wish = error.retry_after_s or 0.0
        if wish > LONGEST_WISH_S:
            return (Health(self._provider, self._policy, Verdict.AWAY, str(error), wish),)
        verdict = Verdict.QUOTA if error.quota else Verdict.OUTAGE if error.outage else Verdict.WELL
        return (Health(self._provider, self._policy, verdict, str(error), wish),)

    def _move_on(self, token: str, claimed: Claimed, begun: Begun) -> None:
        if begun.again_at is not None:
            patiently(
                lifecycle.wait_until, self._engine, token, claimed.id, begun.again_at, begun.slot_at
            )
        elif begun.budget is not None or begun.breaker is not None:
            refusal = self._refusal(claimed, begun)
            self._publisher.publish(
                patiently(lifecycle.turn_away, self._engine, token, [refusal], self._clock())
            )

    def _refusal(self, claimed: Claimed, begun: Begun) -> Refusal:
        whole = plan_of(claimed)
        privacy = privacy_of(claimed.decision, self._catalog)
        hop = next_hop(whole.lanes, claimed.hop, self._catalog, privacy, self._closed(begun))
        opens = begun.open_until
        soon = opens is not None and opens - claimed.queued_at < LONGEST_WAIT_US
        return Refusal(
            id=claimed.id,
            status=Status.BUDGET if begun.budget is not None else Status.DEGRADED,
            reason=begun.budget or begun.breaker or "",
            climb_to=None if hop is None else (hop, whole.lanes[hop]),
            lower=self._questions.lower(claimed),
            again_at=opens if soon else None,
        )

    def _closed(self, begun: Begun) -> set[str]:
        """The lanes that the same reason closes: of the provider, or all that cost money."""
        if begun.budget is not None:
            return {lane for lane in self._catalog.lanes if self._catalog.is_paid(lane)}
        models = self._catalog.models
        return {
            name
            for name, lane in self._catalog.lanes.items()
            if models[lane.model].provider == self._provider
        }
