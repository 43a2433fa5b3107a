"""How hard a decision looks: a class from its kind's tier and its signals, no model asked."""

from __future__ import annotations

from config.catalog import Catalog
from routing.decision import Complexity, Decision, Signals
from routing.digest import digest_of

CLASSES = (Complexity.SIMPLE, Complexity.MODERATE, Complexity.COMPLEX, Complexity.EXPERT)
MANY_DEPENDENCIES = 4
"""Dependencies from which a task counts as entangled."""
_STEPS = {"low": -1, "medium": 0, "high": 1}


def complexity(decision: Decision, catalog: Catalog) -> Complexity:
    """The class of a decision.

    1. What the signals state as its complexity is taken as it is.
    2. The kind's tier gives the start: rank 1 simple, rank 2 moderate, above it complex.
    3. One class up for each of: a task of high complexity; a new situation, or one that
       several agents share; ``MANY_DEPENDENCIES`` or more. One down for a task of low complexity.
    4. Several files make it complex at least.
    5. Creativity, or a new situation that several agents share, make it expert.
    """
    signals = decision.signals
    if signals.complexity is not None:
        return signals.complexity
    if signals.creativity or (signals.multi_agent and signals.novel):
        return Complexity.EXPERT
    digest = digest_of(catalog)
    rank = digest.ranks[digest.kind(decision.kind).tier]
    level = min(rank, 3) - 1 + _steps(signals)
    if signals.multi_file:
        level = max(level, CLASSES.index(Complexity.COMPLEX))
    return CLASSES[max(0, min(level, len(CLASSES) - 1))]


def _steps(signals: Signals) -> int:
    unusual = signals.novel or signals.multi_agent
    entangled = signals.dependencies >= MANY_DEPENDENCIES
    return _STEPS[signals.task_complexity] + unusual + entangled
