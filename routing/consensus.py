"""Consensus of several models: who sits on a panel, what they are asked, and what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from config.catalog import Catalog
from config.consensus import Consensus
from config.demands import Demands
from routing.agreement import agreement_key
from routing.decision import CacheScope, Complexity, Decision, Hop, Output, Plan

PANEL_KEY = "panel."
"""How the keys of the questions to a panel's members begin."""


@dataclass(frozen=True)
class Vote:
    """What a lane says. Without an ``answer`` it is silent, or, if ``open``, has not spoken."""

    lane: str
    answer: str | None = None
    p_answer: float | None = None
    open: bool = False


@dataclass(frozen=True)
class Tally:
    """The state of a vote: won, lost, or, with neither, open.

    ``winner`` is the first vote, in the order of the panel, for the answer that won.
    ``agreeing`` are the lanes of the largest group.
    """

    agreeing: tuple[str, ...]
    winner: Vote | None = None
    lost: bool = False


def panel_of(catalog: Catalog, lane: str, kind: str) -> Consensus | None:
    """The panel that an answer of ``lane`` to a decision of ``kind`` has to convince."""
    found = catalog.lanes.get(lane)
    if found is None or found.consensus is None:
        return None
    kinds = found.consensus.kinds
    return found.consensus if not kinds or kind in kinds else None


def policy_fingerprint(fingerprint: str, catalog: Catalog, lane: str, kind: str) -> str:
    """``fingerprint`` of a lane's model, told apart by the panel that its answers passed.

    Answers are kept under it: one that no panel has seen must not serve where one is wanted.
    """
    panel = panel_of(catalog, lane, kind)
    if panel is None:
        return fingerprint
    models = [catalog.lanes[m].model if m in catalog.lanes else m for m in panel.members]
    return f"{fingerprint}+{panel.agree}:{','.join(models)}"


def member_key(asked: Decision, hop: int, member: str) -> str:
    """The key of the question to one member; the same each time it is asked for."""
    name = hashlib.sha256(f"{asked.key}\0{member}".encode()).hexdigest()[:32]
    return f"{PANEL_KEY}{name}.{hop}"


def member_question(asked: Decision, hop: int, member: str) -> Decision:
    """The question that ``asked`` puts to a member: the same, as private, and never cached.

    ``max_cost_usd`` and the payer stay: all calls for one decision share them.
    """
    own = {"cache": CacheScope.OFF, "force_tier": None, "force_lane": None, "stream": False}
    preferences = asked.preferences.model_copy(update=own)
    return asked.model_copy(
        update={
            "key": member_key(asked, hop, member),
            "preferences": preferences,
            "fallback": None,
            "deadline_s": None,
            "expected": None,
        }
    )


def member_plan(lane: str, member: str, complexity: Complexity) -> Plan:
    """A member answers on its own lane or not at all."""
    hop = Hop(lane=member, reason=f"votes on the panel of {lane}")
    return Plan(hops=(hop,), complexity=complexity)


def tally(votes: Sequence[Vote], needed: int, output: Output, demands: Demands) -> Tally:
    """Count votes. Lost is what no vote that is still open could win."""
    groups: dict[str, list[Vote]] = {}
    for vote in votes:
        if vote.answer:
            groups.setdefault(agreement_key(vote.answer, output, demands), []).append(vote)
    largest = max(groups.values(), key=len, default=[])
    agreeing = tuple(vote.lane for vote in largest)
    if largest and len(largest) >= needed:
        return Tally(agreeing, winner=largest[0])
    still_open = sum(vote.open for vote in votes)
    return Tally(agreeing, lost=len(largest) + still_open < needed)
