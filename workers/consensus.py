"""Consensus in the life of a decision: a panel is asked, waited for, and counted."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from config.catalog import Catalog
from config.consensus import Consensus
from ledger.answers import Answered
from ledger.records import Planned
from ledger.rulings import Settlement
from ledger.votes import Child
from routing.agreement import agreement
from routing.consensus import (
    Vote,
    member_key,
    member_plan,
    member_question,
    panel_of,
    tally,
)
from routing.decision import Decision, Status
from routing.policy import next_hop
from routing.quality import Verdict
from routing.wishes import privacy_of


@dataclass(frozen=True)
class Hearing:
    """Where the panel of an answer stands, and the verdict as it follows from that.

    Members are to be asked (``questions``), are still silent (``waits``), agree (``ending``), or,
    with none of these, do not: the answer has not passed.
    """

    verdict: Verdict
    questions: tuple[Planned, ...] = ()
    waits: bool = False
    ending: Settlement | None = None


def has_panel(answered: Answered, catalog: Catalog) -> bool:
    """Whether a panel votes on an answer; one that is itself a vote or a critique has none."""
    return (
        answered.parent_id is None
        and panel_of(catalog, answered.lane, answered.decision.kind) is not None
    )


def hear(
    answered: Answered,
    verdict: Verdict,
    p_answer: float | None,
    catalog: Catalog,
    children: Mapping[str, Child],
    closed: Container[str],
) -> Hearing | None:
    """The hearing of an answer whose lane has a panel, ``None`` if it has none.

    Who passed its own check votes; all others are silent, also members that may not be asked:
    because of privacy, a missing key or an open breaker. ``children`` are the decision's
    questions to others, by key.
    """
    panel = panel_of(catalog, answered.lane, answered.decision.kind)
    if panel is None or answered.parent_id is not None:
        return None
    votes = [_own(answered, verdict, p_answer)]
    asked = {m: children.get(member_key(answered.decision, answered.hop, m)) for m in panel.members}
    if not any(asked.values()):
        able = able_members(panel, answered.decision, catalog, closed)
        if len(able) + (votes[0].answer is not None) >= panel.needed:
            return Hearing(verdict, questions=tuple(_question(answered, m) for m in able))
    votes += [_vote(member, child) for member, child in asked.items()]
    return _count(answered, verdict, panel, votes, catalog)


def _own(answered: Answered, verdict: Verdict, p_answer: float | None) -> Vote:
    return Vote(answered.lane, verdict.answer if verdict.passed else None, p_answer)


def _vote(member: str, child: Child | None) -> Vote:
    if child is None:
        return Vote(member)
    if not child.settled:
        return Vote(member, open=True)
    # Another lane may have stood in, whose model has a vote of its own or none.
    return Vote(member, child.answer if child.lane == member else None, child.p_answer)


def able_members(
    panel: Consensus, decision: Decision, catalog: Catalog, closed: Container[str] = ()
) -> list[str]:
    """The members that may be asked now; those in the cloud not about what is private."""
    privacy = privacy_of(decision, catalog)
    return [m for m in panel.members if next_hop([m], -1, catalog, privacy, closed) is not None]


def _question(answered: Answered, member: str) -> Planned:
    return Planned(
        member_question(answered.decision, answered.hop, member),
        member_plan(answered.lane, member, answered.plan.complexity),
        parent_id=answered.id,
    )


def _count(
    answered: Answered, verdict: Verdict, panel: Consensus, votes: list[Vote], catalog: Catalog
) -> Hearing:
    output, kind = answered.decision.output, catalog.kind(answered.decision.kind)
    found = tally(votes, panel.needed, output, kind)
    others = {v.lane: v.answer for v in votes[1:] if v.answer}
    told = {**verdict.agreement, **agreement(verdict.answer, others, output, kind)}
    share = f"{len(found.agreeing)} of {panel.size}"
    if found.winner is not None:
        winner, why = found.winner, f"{share} agree: {', '.join(found.agreeing)}"
        ending = Settlement(Status.ACCEPTED, winner.answer or "", winner.lane, why, winner.p_answer)
        within = answered.lane in found.agreeing
        outvoted = () if within or not verdict.passed else (f"outvoted: {why}",)
        issues = (*verdict.issues, *outvoted)
        heard = replace(verdict, passed=within, agreement=told, issues=issues)
        return Hearing(heard, ending=ending)
    if not found.lost:
        return Hearing(verdict, waits=True)
    issue = f"no consensus: {share} agree, {panel.needed} are needed"
    heard = replace(verdict, passed=False, agreement=told, issues=(*verdict.issues, issue))
    return Hearing(heard)
