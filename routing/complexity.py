"""How hard a decision looks: a class from its kind's tier and its signals, no model asked."""

from __future__ import annotations

from config.catalog import Catalog
from routing.decision import Complexity, Decision, Signals

CLASSES = (Complexity.SIMPLE, Complexity.MODERATE, Complexity.COMPLEX, Complexity.EXPERT)
MANY_DEPENDENCIES = 4
"""Dependencies from which a task counts as entangled."""


def complexity(decision: Decision, catalog: Catalog) -> Complexity:
    """The class of a decision.

    1. The kind's tier gives the start: rank 1 simple, rank 2 moderate, above it complex.
    2. One class up for each of: a task of high complexity; a new situation, or one that
       several agents share; ``MANY_DEPENDENCIES`` or more. One down for a task of low complexity.
    3. Several files make it complex at least.
    4. Creativity, or a new situation that several agents share, make it expert.
    """
    signals = decision.signals
    if signals.creativity or (signals.multi_agent and signals.novel):
        return Complexity.EXPERT
    rank = catalog.tiers[catalog.kind(decision.kind).tier].rank
    level = min(rank, 3) - 1 + _steps(signals)
    if signals.multi_file:
        level = max(level, CLASSES.index(Complexity.COMPLEX))
    return CLASSES[max(0, min(level, len(CLASSES) - 1))]


def _steps(signals: Signals) -> int:
    task = {"low": -1, "medium": 0, "high": 1}[signals.task_complexity]
    unusual = signals.novel or signals.multi_agent
    return task + unusual + (signals.dependencies >= MANY_DEPENDENCIES)
