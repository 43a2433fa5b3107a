"""Asks the top lane, now and then, what it would have said in place of an accepted answer."""

from __future__ import annotations

from config.catalog import Catalog
from ledger.answers import Answered
from ledger.records import Planned
from routing.audit import audit_lane, audit_question, is_chosen
from routing.decision import Hop, Plan


def audit_of(answered: Answered, catalog: Catalog) -> Planned | None:
    """The audit of an answer that is about to be accepted, if it is chosen.

    Whoever checks the same answer again chooses the same and asks under the same key.
    """
    decision = answered.decision
    share = catalog.audit_share(decision.kind)
    if answered.parent_id is not None or not is_chosen(answered.id, share):
        return None
    lane = audit_lane(decision, answered.lane, catalog)
    if lane is None:
        return None
    reason = f"audits the answer of {answered.lane}, chosen with probability {share:g}"
    hop = Hop(lane=lane, reason=reason)
    only = Plan(hops=(hop,), complexity=answered.plan.complexity)
    question = audit_question(decision, answered.id, answered.hop)
    return Planned(question, only, parent_id=answered.id, propensity=share)
