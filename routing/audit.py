"""Which accepted answers the top lane is asked again, and what its word says of the others."""

from __future__ import annotations

import hashlib
import json

from config.catalog import Catalog, OutputType
from routing.critique import CRITIC_KIND
from routing.decision import CacheScope, Decision, Output, Preferences
from routing.digest import GENERAL
from routing.policy import may_see
from routing.wishes import privacy_of


def audit_lane(decision: Decision, lane: str, catalog: Catalog) -> str | None:
    """The top lane, if it may be asked whether the answer that ``lane`` gave is right.

    ``None`` where it gave that answer, where it is absent, where the prompt may not leave the
    machine for it, and where answers cannot be compared word by word, as with text. A decision
    whose right answer is known needs no audit, and a critic is none.
    """
    if decision.kind == CRITIC_KIND or decision.expected is not None:
        return None
    if decision.output.type is OutputType.TEXT or is_top(lane, catalog):
        return None
    privacy = privacy_of(decision, catalog)
    able = [n for n in catalog.lanes if is_top(n, catalog) and may_see(n, catalog, privacy)]
    for sort in (catalog.kind(decision.kind).speciality or GENERAL, GENERAL):
        of_sort = [name for name in able if catalog.lanes[name].speciality == sort]
        if of_sort:
            return of_sort[0]
    return able[0] if able else None


def is_top(lane: str, catalog: Catalog) -> bool:
    """Whether a lane is on the highest tier that the profile names, be that served here or not."""
    highest = max(tier.rank for tier in catalog.tiers.values())
    return lane in catalog.lanes and catalog.rank(lane) == highest


def is_chosen(decision_id: str, share: float) -> bool:
    """Whether a decision is among the ``share`` that is audited; the same each time it is asked.

    The first 53 bits of a SHA-256 of its id stand for a number that is even on [0, 1).
    """
    return _draw(f"audit.{decision_id}") < share


def audit_question(asked: Decision, decision_id: str, hop: int) -> Decision:
    """``asked`` once more, as private as it was; an answer from a cache would show nothing."""
    name = hashlib.sha256(f"{decision_id}.{asked.key}".encode()).hexdigest()[:32]
    wishes = Preferences(
        privacy=asked.preferences.privacy,
        adapter=asked.preferences.adapter,
        cache=CacheScope.OFF,
    )
    changes = {"key": f"audit.{name}.{hop}", "preferences": wishes, "fallback": None,
               "deadline_s": None, "expected": None}  # fmt: skip
    return asked.model_copy(update=changes)


def agrees(output: Output, answer: str, truth: str) -> bool | None:
    """Whether an answer is the true one; ``None`` where that cannot be told, as with text.

    Labels must be equal, JSON must have equal values, whatever the order of its keys.
    """
    if output.type is OutputType.TEXT:
        return None
    if output.type is OutputType.CHOICE or not answer:
        return answer == truth
    try:
        return bool(json.loads(answer) == json.loads(truth))
    except ValueError:
        return False


def _draw(text: str) -> float:
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53
