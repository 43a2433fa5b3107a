"""Holds answers that passed the rubric to the policy in force, else to their lane's certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from config.catalog import Catalog
from ledger.answers import Answered
from ledger.certificates import Certificates
from ledger.policies import Policies
from ledger.rulings import Settlement
from ledger.votes import Earlier
from routing.audit import is_top
from routing.decision import Status
from routing.live import Live, scope_of
from routing.quality import Verdict
from workers.consensus import has_panel


@dataclass(frozen=True)
class Word:
    """What is said of an answer: its verdict as it is, or held back with the reason as its issue.

    ``asks`` is the lane that the policy wants to hear next, ``ending`` the earlier answer that it
    keeps instead; ``by`` says why it accepts.
    """

    verdict: Verdict
    asks: str | None = None
    ending: Settlement | None = None
    by: str = ""


class Acceptance:
    """Lets the answers pass that the policy or a certificate covers, and those that need none."""

    def __init__(self, catalog: Catalog, certificates: Certificates, policies: Policies) -> None:
        self._catalog = catalog
        self._certificates = certificates
        self._policies = policies

    def word(
        self,
        answered: Answered,
        verdict: Verdict,
        p: float | None,
        earlier: Mapping[str, Earlier],
    ) -> Word:
        """The policy's word where it covers the answer; ``earlier`` are those of other lanes.

        Else, on the top tier the rubric alone decides. Below it a certificate in force has its say,
        and where the kind demands one, its absence too.
        """
        if not verdict.passed or answered.lane not in self._catalog.lanes:
            return Word(verdict)
        found = self._by_policy(answered, verdict, p, earlier)
        if found is not None:
            return found
        if is_top(answered.lane, self._catalog):
            return Word(verdict)
        reason = self._objection(answered, verdict.answer, p)
        return Word(verdict if reason is None else _held(verdict, reason))

    def _by_policy(
        self,
        answered: Answered,
        verdict: Verdict,
        p: float | None,
        earlier: Mapping[str, Earlier],
    ) -> Word | None:
        live = self._policies.find()
        if live is None or answered.parent_id is not None or has_panel(answered, self._catalog):
            return None  # critics, audits and panels have no part in it
        if not self._covers(live, answered, answered.lane, answered.fingerprint):
            return None
        second = self._second(live, answered, verdict, p, earlier)
        if second is not None:
            return second
        kind, lane = answered.decision.kind, answered.lane
        above = live.learnt.next(lane, kind, verdict.answer, p)
        if above is None:
            return Word(verdict, by=f"accepted by the policy learnt from run {live.run}")
        sure = "" if p is None else f" with {p:.3f}"
        reason = (
            f"the policy learnt from run {live.run} asks {above} after {verdict.answer!r}{sure}"
        )
        return Word(_held(verdict, reason), asks=above)

    def _second(
        self,
        live: Live,
        answered: Answered,
        verdict: Verdict,
        p: float | None,
        earlier: Mapping[str, Earlier],
    ) -> Word | None:
        """Its word on an answer that it had asked for; ``None`` if it had not."""
        for lane, first in earlier.items():
            below = first.verdict
            if below.asks != answered.lane or lane not in self._catalog.lanes:
                continue
            if not self._covers(live, answered, lane, first.fingerprint):
                continue
            lower = live.learnt.keeps_lower(
                answered.decision.kind,
                (lane, below.answer, below.p_answer),
                (answered.lane, verdict.answer, p),
            )
            if lower is None:
                continue
            by = f"the policy learnt from run {live.run}"
            if not lower:
                return Word(verdict, by=f"kept by {by} after {lane}")
            why = f"{by} keeps the answer of {lane} over that of {answered.lane}"
            ending = Settlement(Status.ACCEPTED, below.answer, lane, why, below.p_answer)
            # Overruled: no cache is to serve either answer as one of this lane's.
            return Word(_held(verdict, why), ending=ending)
        return None

    def _covers(self, live: Live, answered: Answered, lane: str, fingerprint: str) -> bool:
        scope = scope_of(answered.decision, lane, fingerprint, self._catalog)
        return live.covers(scope, self._catalog)

    def _objection(self, answered: Answered, answer: str, p: float | None) -> str | None:
        kind, lane = answered.decision.kind, answered.lane
        scope = scope_of(answered.decision, lane, answered.fingerprint, self._catalog)
        found = self._certificates.find(scope)
        if found is None:
            demanded = self._catalog.kind(kind).certified
            return f"no certificate of {lane} for {kind}" if demanded else None
        if p is None:
            return f"{lane} gave no probability, and its certificate needs one"
        least = found.threshold(answer)
        if least is None:
            return f"the certificate of {lane} covers no {answer!r}"
        if p < least:
            return f"{answer!r} has {p:.3f}, below the certified {least:.3f}"
        return None


def _held(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, passed=False, held_back=True, issues=(*verdict.issues, reason))
