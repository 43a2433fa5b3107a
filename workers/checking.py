"""The quality check: a verdict for every answer, and what follows from it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import Engine

from config.catalog import Catalog
from config.load import AbsentLane
from config.settings import Settings
from ledger import cache, lifecycle, sweeping
from ledger.answers import Answered, find_answered
from ledger.cache import Cached
from ledger.clock import Clock
from ledger.patience import patiently
from ledger.providers import closed_lanes
from ledger.records import Planned, StoredVerdict
from ledger.transitions import Ruling, Settlement
from routing.critique import NO, YES, critic_question
from routing.decision import Status
from routing.policy import next_hop, plan
from routing.quality import Answer, Verdict, check
from workers.answering import may_cache, scoped_key
from workers.publishing import Publisher

LONGEST_SHOWN = 50_000
"""Characters of an answer that a critic is shown."""


class Checker:
    """Checks answers of all lanes."""

    def __init__(
        self, settings: Settings, *, engine: Engine, publisher: Publisher, clock: Clock
    ) -> None:
        self._catalog: Catalog = settings.catalog
        self._absent = settings.absent_lanes
        self._max_deliveries = settings.max_deliveries
        self._engine = engine
        self._publisher = publisher
        self._clock = clock
        self._closed: dict[str, AbsentLane] = {}

    def check(self, ids: Sequence[str]) -> None:
        """Rule on those of ``ids`` that await a verdict."""
        answered = patiently(find_answered, self._engine, ids)
        ready = [a for a in answered if a.critic_id is None or a.critic_settled]
        if any(a.deliveries > 0 for a in ready):
            ready = self._without_poison(ready)
        self._closed = patiently(closed_lanes, self._engine, self._catalog, self._clock())
        rulings = [self._rule(a) for a in ready]
        # Stored before it is settled: whoever waits for the settlement finds it cached.
        self._store(ready, rulings)
        self._publisher.publish(patiently(lifecycle.rule, self._engine, rulings, self._clock()))

    def _without_poison(self, ready: Sequence[Answered]) -> list[Answered]:
        ids = [a.id for a in ready]
        going_on, followers = patiently(
            sweeping.begin_checks, self._engine, ids, self._max_deliveries, self._clock()
        )
        self._publisher.publish(followers)
        return [a for a in ready if a.id in going_on]

    def _rule(self, answered: Answered) -> Ruling:
        kind = self._catalog.kind(answered.decision.kind)
        verdict = self._verdict(answered)
        p_answer = max(answered.probabilities) if answered.probabilities else None
        if kind.critique and answered.critic_id is None and verdict.passed:
            critic = self._critic(answered, verdict.answer)
            return _ruling(answered, verdict, p_answer, critic=critic)
        if verdict.passed:
            why = f"passed the check of {answered.lane} with {verdict.score:.2f}"
            ending = Settlement(Status.ACCEPTED, verdict.answer, answered.lane, why, p_answer)
            return _ruling(answered, verdict, p_answer, settle=ending)
        privacy = answered.decision.preferences.privacy
        hop = next_hop(answered.plan.lanes, answered.hop, self._catalog, privacy, self._closed)
        if hop is not None:
            climb = (hop, answered.plan.lanes[hop])
            return _ruling(answered, verdict, p_answer, climb_to=climb)
        faults = "; ".join((*verdict.vetoes, *verdict.issues)) or f"scored {verdict.score:.2f}"
        shut = [self._closed[lane].reason for lane in answered.plan.lanes if lane in self._closed]
        why = "; ".join([f"no lane is left after: {faults}", *shut])
        return _ruling(answered, verdict, p_answer, degrade=why)

    def _verdict(self, answered: Answered) -> Verdict:
        kind = self._catalog.kind(answered.decision.kind)
        critique = None if answered.critic is None else answered.critic == YES
        return check(
            Answer(
                raw=answered.raw,
                label=answered.label,
                probabilities=answered.probabilities,
                truncated=answered.truncated,
                prompt=answered.decision.prompt,
            ),
            answered.decision.output,
            threshold=kind.threshold,
            margin=kind.margin,
            critique=critique,
        )

    def _critic(self, answered: Answered, answer: str) -> Planned:
        asked = answered.decision
        name = hashlib.sha256(asked.key.encode()).hexdigest()[:32]
        question = critic_question(asked, answer[:LONGEST_SHOWN], f"critic.{name}.{answered.hop}")
        question = question.model_copy(update={"fallback": NO})
        whole = plan(question, self._catalog, self._absent)
        first = whole.model_copy(update={"hops": whole.hops[:1]})
        return Planned(question, first, parent_id=answered.id)

    def _store(self, answered: Sequence[Answered], rulings: Sequence[Ruling]) -> None:
        accepted = {r.id: r.settle for r in rulings if r.passed and r.settle is not None}
        entries = []
        for one in answered:
            ending = accepted.get(one.id)
            if ending is not None and may_cache(self._catalog, one.decision):
                key = scoped_key(one.run_id, one.decision, one.fingerprint)
                entries.append(Cached(key, ending.answer, one.lane, ending.p_answer))
        patiently(cache.store, self._engine, entries, self._clock())


def _ruling(
    answered: Answered,
    verdict: Verdict,
    p_answer: float | None,
    *,
    settle: Settlement | None = None,
    climb_to: tuple[int, str] | None = None,
    critic: Planned | None = None,
    degrade: str | None = None,
) -> Ruling:
    stored = StoredVerdict(
        format=verdict.format,
        completeness=verdict.completeness,
        coherence=verdict.coherence,
        critique=verdict.critique,
        score=verdict.score,
        passed=verdict.passed,
        usable=not verdict.vetoes,
        answer=verdict.answer,
        p_answer=p_answer,
        vetoes=tuple(verdict.vetoes),
        issues=tuple(verdict.issues),
    )
    return Ruling(
        id=answered.id,
        hop=answered.hop,
        attempt_id=answered.attempt_id,
        verdict=stored.model_dump_json(),
        score=verdict.score,
        passed=verdict.passed,
        settle=settle,
        climb_to=climb_to,
        critic=critic,
        degrade=degrade,
    )
