"""The quality check: a verdict for every answer, and what follows from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Engine

from config.catalog import Catalog
from config.load import AbsentLane
from config.settings import Settings
from ledger import lifecycle, sweeping
from ledger.answers import Answered, find_answered
from ledger.certificates import Certificates
from ledger.clock import Clock
from ledger.lanes import ClosedLanes
from ledger.patience import patiently
from ledger.policies import Policies
from ledger.records import Planned, StoredVerdict
from ledger.rulings import Ruling, Settlement
from ledger.votes import Child, Earlier, find_children, find_earlier
from routing.agreement import agreement
from routing.audit import is_top
from routing.critique import NO, YES, critic_question
from routing.decision import Status
from routing.policy import next_hop, plan
from routing.quality import Answer, Verdict, check
from routing.wishes import privacy_of
from workers.acceptance import Acceptance, Word
from workers.auditing import audit_of
from workers.caching import Memory
from workers.consensus import has_panel, hear
from workers.narrating import tell_checks
from workers.publishing import Publisher

LONGEST_SHOWN = 50_000
"""Characters of an answer that a critic is shown."""


class Checker:
    """Checks answers of all lanes."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine,
        publisher: Publisher,
        clock: Clock,
        fingerprint_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self._catalog: Catalog = settings.catalog
        self._absent = settings.absent_lanes
        self._max_deliveries = settings.max_deliveries
        self._engine = engine
        self._publisher = publisher
        self._clock = clock
        self._memory = Memory(
            settings.catalog, engine=engine, clock=clock, fingerprint_of=fingerprint_of
        )
        self._lanes = ClosedLanes(engine, settings.catalog, clock)
        self._closed: dict[str, AbsentLane] = {}
        self._earlier: dict[str, dict[str, Earlier]] = {}
        self._children: dict[str, dict[str, Child]] = {}
        self._acceptance = Acceptance(
            settings.catalog, Certificates(engine, clock), Policies(engine, clock)
        )

    def check(self, ids: Sequence[str]) -> None:
        """Rule on those of ``ids`` that await a verdict."""
        began = self._clock()
        answered = patiently(find_answered, self._engine, ids)
        ready = [
            a
            for a in answered
            if a.critic_id is None or a.critic_settled or has_panel(a, self._catalog)
        ]
        if any(a.deliveries > 0 for a in ready):
            ready = self._without_poison(ready)
        self._closed = patiently(self._lanes.find)
        self._look_around(ready)
        rulings = [ruling for ruling in map(self._rule, ready) if ruling is not None]
        # Stored before it is settled: whoever waits for the settlement finds it cached.
        self._store(ready, rulings)
        followers = patiently(lifecycle.rule, self._engine, rulings, self._clock())
        tell_checks(ready, {ruling.id: ruling for ruling in rulings}, began, self._clock())
        self._publisher.publish(followers)
        self._store_degraded(ready, rulings)

    def _without_poison(self, ready: Sequence[Answered]) -> list[Answered]:
        ids = [a.id for a in ready]
        going_on, followers = patiently(
            sweeping.begin_checks, self._engine, ids, self._max_deliveries, self._clock()
        )
        self._publisher.publish(followers)
        return [a for a in ready if a.id in going_on]

    def _look_around(self, ready: Sequence[Answered]) -> None:
        """Read what other lanes said, where it matters."""
        higher = [a.id for a in ready if a.hop > 0]
        heard = [a.id for a in ready if has_panel(a, self._catalog)]
        self._earlier = patiently(find_earlier, self._engine, higher) if higher else {}
        self._children = patiently(find_children, self._engine, heard) if heard else {}

    def _rule(self, answered: Answered) -> Ruling | None:
        """What follows for an answer; nothing while its panel is silent."""
        p_answer = _p_answer(answered)
        earlier = self._earlier.get(answered.id, {})
        checked = self._verdict(answered, earlier)
        word = self._acceptance.word(answered, checked, p_answer, earlier)
        if word.ending is not None:
            return self._accepted(answered, word.verdict, p_answer, word.ending)
        heard = hear(
            answered, word.verdict, p_answer, self._catalog,
            self._children.get(answered.id, {}), self._closed,
        )  # fmt: skip
        if heard is not None:
            if heard.waits:
                return None
            if heard.ending is not None:
                return self._accepted(answered, heard.verdict, p_answer, heard.ending)
            if heard.questions:
                return _ruling(answered, heard.verdict, p_answer, questions=heard.questions)
            word = replace(word, verdict=heard.verdict)
        elif self._wants_critic(answered, word.verdict):
            critic = self._critic(answered, word.verdict.answer)
            return _ruling(answered, word.verdict, p_answer, questions=(critic,))
        return self._concluded(answered, word, p_answer)

    def _concluded(self, answered: Answered, word: Word, p_answer: float | None) -> Ruling:
        verdict = word.verdict
        if not verdict.passed:
            return self._onward(answered, word, p_answer)
        why = f"passed the check of {answered.lane} with {verdict.score:.2f}"
        why = f"{why}; {word.by}" if word.by else why
        ending = Settlement(Status.ACCEPTED, verdict.answer, answered.lane, why, p_answer)
        return self._accepted(answered, verdict, p_answer, ending)

    def _accepted(
        self, answered: Answered, verdict: Verdict, p_answer: float | None, ending: Settlement
    ) -> Ruling:
        audit = audit_of(answered, self._catalog)
        top = is_top(answered.lane, self._catalog)
        return _ruling(answered, verdict, p_answer, settle=ending, audit=audit, top=top)

    def _onward(self, answered: Answered, word: Word, p_answer: float | None) -> Ruling:
        """What follows for an answer that has not passed: the lane that the policy wants, else the
        next one, or the best so far."""
        verdict, lanes = word.verdict, answered.plan.lanes
        hop = self._hop(answered, word.asks)
        if hop is not None:
            asks = None if word.asks is None else lanes[hop]
            return _ruling(answered, verdict, p_answer, climb_to=(hop, lanes[hop]), asks=asks)
        faults = "; ".join((*verdict.vetoes, *verdict.issues)) or f"scored {verdict.score:.2f}"
        shut = [self._closed[lane].reason for lane in lanes if lane in self._closed]
        why = "; ".join([f"no lane is left after: {faults}", *shut])
        top = is_top(answered.lane, self._catalog)
        return _ruling(answered, verdict, p_answer, degrade=why, top=top)

    def _hop(self, answered: Answered, wanted: str | None) -> int | None:
        privacy = privacy_of(answered.decision, self._catalog)
        found = None
        if wanted is not None:
            found = next_hop(
                answered.plan.lanes, answered.hop, self._catalog, privacy, self._closed, only=wanted
            )
        if found is not None:
            return found
        return next_hop(answered.plan.lanes, answered.hop, self._catalog, privacy, self._closed)

    def _verdict(self, answered: Answered, earlier: Mapping[str, Earlier]) -> Verdict:
        """The rubric's."""
        kind = self._catalog.kind(answered.decision.kind)
        verdict = check(
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
            critique=None if answered.critic is None else answered.critic == YES,
            demands=kind,
        )
        lower = {lane: one.verdict.answer for lane, one in earlier.items() if lane != answered.lane}
        told = agreement(verdict.answer, lower, answered.decision.output, kind)
        return replace(verdict, agreement=told)

    def _wants_critic(self, answered: Answered, verdict: Verdict) -> bool:
        kind = self._catalog.kind(answered.decision.kind)
        # Who is asked about another's answer is not asked about in turn.
        first = answered.critic_id is None and answered.parent_id is None
        return kind.critique and first and verdict.passed

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
        self._memory.keep([(one, accepted[one.id]) for one in answered if one.id in accepted])

    def _store_degraded(self, answered: Sequence[Answered], rulings: Sequence[Ruling]) -> None:
        """What is best was found out where it was settled."""
        ids = [ruling.id for ruling in rulings if ruling.degrade is not None]
        if ids:
            ended = {s.id: s for s in patiently(lifecycle.find_settled, self._engine, ids)}
            self._memory.keep_degraded(
                [(one, ended[one.id], self._heard(one)) for one in answered if one.id in ended]
            )

    def _heard(self, one: Answered) -> dict[str, str]:
        """What served the lanes that have answered, by their names."""
        earlier = self._earlier.get(one.id, {})
        return {lane: said.fingerprint for lane, said in earlier.items()} | {
            one.lane: one.fingerprint
        }


def _p_answer(answered: Answered) -> float | None:
    return max(answered.probabilities) if answered.probabilities else None


def _ruling(
    answered: Answered,
    verdict: Verdict,
    p_answer: float | None,
    *,
    settle: Settlement | None = None,
    climb_to: tuple[int, str] | None = None,
    questions: tuple[Planned, ...] = (),
    degrade: str | None = None,
    audit: Planned | None = None,
    top: bool = False,
    asks: str | None = None,
) -> Ruling:
    return Ruling(
        id=answered.id,
        hop=answered.hop,
        attempt_id=answered.attempt_id,
        verdict=_stored(verdict, p_answer, asks).model_dump_json(),
        score=verdict.score,
        passed=verdict.passed,
        settle=settle,
        climb_to=climb_to,
        questions=questions,
        degrade=degrade,
        audit=audit,
        is_top=top,
    )


def _stored(verdict: Verdict, p_answer: float | None, asks: str | None) -> StoredVerdict:
    return StoredVerdict(
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
        agreement=dict(verdict.agreement),
        sound=verdict.passed or verdict.held_back,
        asks=asks,
    )
