"""Answers decisions of one lane: claim, cache, backend, record."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Iterable, Sequence

from sqlalchemy import Engine

from config.catalog import Catalog, Sampling
from config.errors import BackendError
from config.settings import Settings
from ledger import cache, lifecycle
from ledger.clock import SECOND, Clock
from ledger.lifecycle import Followers
from ledger.outbox import new_id
from ledger.records import Claimed, Hit, Tried
from routing.decision import CacheScope, ChoiceOutput, Decision, Status
from routing.fingerprint import cache_key
from routing.retries import after_failure
from workers.backends.base import Backend, Completion, Request
from workers.leases import LeaseKeeper
from workers.publishing import Publisher

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
    ) -> None:
        self._settings = settings
        self._catalog: Catalog = settings.catalog
        self._lane = lane
        self._engine = engine
        self._backend = backend
        self._fingerprint = fingerprint
        self._publisher = publisher
        self._clock = clock
        self._leases = LeaseKeeper(engine, clock, settings.lease_s)

    def answer(self, lane: str, ids: Sequence[str]) -> None:
        """Answer those of ``ids`` that wait on this lane; the rest is somebody else's."""
        if lane != self._lane:
            log.error("a message for lane %s came to a worker of %s", lane, self._lane)
            return
        token = new_id()
        lease_us = int(self._settings.lease_s * SECOND)
        claimed = lifecycle.claim(
            self._engine, self._lane, ids, token=token, now=self._clock(), lease_us=lease_us
        )
        with self._leases.keeping(token):
            claimed = self._bury_poison(token, claimed)
            claimed = self._serve_cached(token, claimed)
            if claimed:
                self._call(token, claimed)

    def close(self) -> None:
        """Give back the backend and stop renewing."""
        self._leases.close()
        self._backend.close()

    def _bury_poison(self, token: str, claimed: list[Claimed]) -> list[Claimed]:
        limit = self._settings.max_deliveries
        poison = [c for c in claimed if c.deliveries > limit]
        if poison:
            reason = f"delivered {limit} times without an outcome; its workers may have died of it"
            followers = lifecycle.bury(
                self._engine, token, [c.id for c in poison], reason, self._clock(), Status.DEAD
            )
            self._publisher.publish(followers)
        return [c for c in claimed if c.deliveries <= limit]

    def _serve_cached(self, token: str, claimed: list[Claimed]) -> list[Claimed]:
        keys = {
            c.id: scoped_key(c.run_id, c.decision, self._fingerprint)
            for c in claimed
            if may_cache(self._catalog, c.decision)
        }
        if not keys:
            return claimed
        found = cache.look_up(self._engine, list(keys.values()), self._clock())
        hits = [
            Hit(c.id, found[keys[c.id]].answer, found[keys[c.id]].lane, found[keys[c.id]].p_answer)
            for c in claimed
            if keys.get(c.id) in found
        ]
        if hits:
            self._publisher.publish(
                lifecycle.settle_cached(self._engine, token, hits, self._clock())
            )
        served = {hit.id for hit in hits}
        return [c for c in claimed if c.id not in served]

    def _call(self, token: str, claimed: list[Claimed]) -> None:
        waiting = {c.id: c for c in claimed}
        begun = self._clock()
        done: list[Tried] = []
        last = time.monotonic()
        for completion in self._completions(claimed):
            done.append(self._tried(waiting.pop(completion.id), completion, begun))
            if time.monotonic() - last >= self._catalog.lanes[self._lane].record_every_s:
                self._record(token, done)
                done, last = [], time.monotonic()
        self._record(token, done)

    def _completions(self, claimed: Sequence[Claimed]) -> Iterable[Completion]:
        """A completion for every claimed decision, whatever the backend does."""
        requests = [self._request(c) for c in claimed]
        missing = {r.id for r in requests}
        try:
            for completion in self._backend.answer(requests):
                missing.discard(completion.id)
                yield completion
        except BackendError as error:
            log.warning("lane %s failed: %s", self._lane, error)
            for request_id in sorted(missing):
                yield Completion(id=request_id, error=error)

    def _record(self, token: str, tried: list[Tried]) -> None:
        if tried:
            followers: Followers = lifecycle.record(self._engine, token, tried, self._clock())
            self._publisher.publish(followers)

    def _request(self, claimed: Claimed) -> Request:
        decision = claimed.decision
        return Request(
            id=claimed.id,
            kind=decision.kind,
            system=decision.system,
            prompt=decision.prompt,
            output=decision.output,
            sampling=self._sampling(decision),
            seed=draw_seed(decision, self._lane, claimed.tries),
        )

    def _sampling(self, decision: Decision) -> Sampling:
        sampling = self._catalog.sampling(self._lane)
        if isinstance(decision.output, ChoiceOutput):
            return sampling
        changes: dict[str, object] = {}
        if decision.output.max_tokens is not None:
            changes["max_tokens"] = decision.output.max_tokens
        stops = getattr(decision.output, "stops", None)
        if stops is not None:
            changes["stops"] = stops
        return sampling.model_copy(update=changes) if changes else sampling

    def _tried(self, claimed: Claimed, completion: Completion, begun: int) -> Tried:
        error = completion.error
        return Tried(
            id=claimed.id,
            model=self._catalog.lanes[self._lane].model,
            fingerprint=self._fingerprint,
            raw=completion.raw,
            label=completion.label,
            probabilities=completion.probabilities,
            mass=completion.mass,
            truncated=completion.truncated,
            tokens_in=completion.tokens_in,
            tokens_out=completion.tokens_out,
            tokens_cached=completion.tokens_cached,
            cost_micros=completion.cost_micros,
            waiting_us=max(0, begun - claimed.queued_at),
            inference_us=int(completion.inference_s * SECOND),
            error="" if error is None else str(error) or type(error).__name__,
            again_at=None if error is None else self._again_at(claimed, error),
            unknown_charge_micros=None if error is None else error.unknown_charge_micros,
        )

    def _again_at(self, claimed: Claimed, error: BackendError) -> int | None:
        lane = self._catalog.lanes[self._lane]
        charged = error.unknown_charge_micros is not None
        retry = after_failure(
            tries=claimed.tries + 1,
            max_tries=lane.max_attempts,
            retryable=error.retryable and (lane.repeat_unknown_charges or not charged),
            retry_after_s=error.retry_after_s,
            rng=random.Random(f"{claimed.id}.{claimed.tries}"),
        )
        return self._clock() + int(retry.delay_s * SECOND) if retry.again else None


def draw_seed(decision: Decision, lane: str, tries: int) -> int:
    """The seed of one call's sampling: the decision's own, moved on for each lane and try."""
    text = f"{decision.seed}.{lane}.{tries}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def may_cache(catalog: Catalog, decision: Decision) -> bool:
    """Whether an earlier answer may serve: the kind allows it, and the asker does."""
    return catalog.kind(decision.kind).cache and decision.preferences.cache is not CacheScope.OFF


def scoped_key(run_id: str, decision: Decision, fingerprint: str) -> str:
    """The cache key, apart for each run unless the decision shares with all."""
    key = cache_key(decision, fingerprint)
    if decision.preferences.cache is CacheScope.SHARED:
        return key
    return hashlib.sha256(f"{run_id}.{key}".encode()).hexdigest()
