"""How often lanes were right, by kind, where little is known leaning on what is alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST, MOST = 2.0, 1e6
"""Bounds of the rows that a group's mean may count as."""


@dataclass(frozen=True)
class Count:
    """What is known of a kind on a lane. ``group`` is the kind's class, ``tier`` the lane's.

    ``right`` of ``n`` labelled answers were right; both may be sums of weights.
    """

    kind: str
    lane: str
    group: str
    tier: str
    n: float
    right: float


@dataclass(frozen=True)
class Success:
    """Expected shares of right answers, between 0 and 1: by kind, class and tier."""

    by_kind: Mapping[tuple[str, str], float] = field(default_factory=dict)
    by_group: Mapping[tuple[str, str], float] = field(default_factory=dict)
    by_tier: Mapping[str, float] = field(default_factory=dict)

    def of(self, kind: str, lane: str, group: str, tier: str) -> float | None:
        """The most particular share there is; ``None`` if the tier was never seen."""
        own = self.by_kind.get((kind, lane))
        return own if own is not None else self.by_group.get((group, tier), self.by_tier.get(tier))


@dataclass(frozen=True)
class Choice:
    """A lane that a decision might climb: its success and the mean cost of a call."""

    lane: str
    success: float
    cost: float


def learn(counts: Sequence[Count]) -> Success:
    """Shares by (kind, lane), drawn to those of the class on that tier, these to the tier's.

    Empirical Bayes for a beta-binomial: at each level the mean counts as ``k`` rows, and ``k``
    follows from how much the shares differ beyond what chance explains (moments; Kleinman 1973).
    """
    tiers = sorted({c.tier for c in counts})
    by_tier: dict[str, float] = {}
    by_group: dict[tuple[str, str], float] = {}
    by_kind: dict[tuple[str, str], float] = {}
    for tier in tiers:
        rows = [c for c in counts if c.tier == tier and c.n > 0]
        groups = sorted({c.group for c in rows})
        n = np.array([sum(c.n for c in rows if c.group == g) for g in groups])
        right = np.array([sum(c.right for c in rows if c.group == g) for g in groups])
        if not groups:
            continue
        by_tier[tier] = float((right.sum() + 1) / (n.sum() + 2))
        drawn = drawn_to(by_tier[tier], right, n)
        by_group |= {(g, tier): float(p) for g, p in zip(groups, drawn, strict=True)}
        for group in groups:
            own = [c for c in rows if c.group == group]
            p = drawn_to(
                by_group[group, tier],
                np.array([c.right for c in own]),
                np.array([c.n for c in own]),
            )
            by_kind |= {(c.kind, c.lane): float(x) for c, x in zip(own, p, strict=True)}
    return Success(by_kind, by_group, by_tier)


def drawn_to(mean: float, right: Floats, n: Floats) -> Floats:
    """Shares ``right / n`` drawn to ``mean``, as if that were ``k`` rows more."""
    spread = mean * (1 - mean)
    return shrunk(right, n, mean, spread)


def shrunk(sums: Floats, n: Floats, mean: float, spread: float) -> Floats:
    """Group means ``sums / n`` drawn to ``mean`` by empirical Bayes; a group without rows has it.

    Args:
        sums: of each group's values.
        n: rows of each group.
        mean: what they are drawn to.
        spread: variance of one value within a group.

    The variance between groups is estimated by moments (DerSimonian and Laird 1986):
    ``tau2 = (Q - (groups - 1)) / (N - sum(n**2) / N)`` of ``spread``, and ``k = 1 / tau2``.
    """
    seen = n > 0
    rows, groups = float(n.sum()), int(seen.sum())
    if groups < 2 or spread <= 0:
        k = FEWEST if spread > 0 else 0.0
    else:
        deviation = np.divide(sums, n, out=np.full(n.shape, mean), where=seen) - mean
        excess = float((n * deviation**2).sum()) / spread - (groups - 1)
        room = rows - float((n**2).sum()) / rows
        k = float(np.clip(room / max(excess, 1e-12), FEWEST, MOST))
    drawn = np.full(n.shape, mean)
    return np.asarray(np.divide(sums + k * mean, n + k, out=drawn, where=(n + k) > 0))


def worth(choices: Sequence[Choice], value: float) -> list[Choice]:
    """The lanes of a climb that are worth their cost, in their order.

    ``value`` is what a right answer is worth, in the units of cost. Lanes that another one beats,
    by being no dearer and at least as often right, are left out first: a dearer model may be the
    worse. Then the start is where ``success * value - cost`` of the whole climb is greatest, if a
    wrong answer is always noticed; a lane is passed over when the climb is worth more without it.
    An empty list only for no choices.
    """
    left = [c for c in choices if not any(_beats(other, c, choices) for other in choices)]
    left.sort(key=lambda c: (c.success, -c.cost))
    while len(left) > 1:
        whole = climb_value(left, value)
        without = [[*left[:i], *left[i + 1 :]] for i in range(len(left) - 1)]
        best = max(without, key=lambda some: climb_value(some, value))
        if climb_value(best, value) < whole:
            break
        left = best
    return left


def climb_value(choices: Sequence[Choice], value: float) -> float:
    """What a climb is worth if each lane is asked only when those before it were wrong.

    The last is as often right as ever it is, whatever failed before: its answers are taken.
    """
    cost, reached, right = 0.0, 1.0, 0.0
    for choice in choices:
        cost += reached * choice.cost
        right = max(right, choice.success)
        reached *= 1 - choice.success
    return right * value - cost


def top(choices: Sequence[Choice]) -> Choice:
    """The lane that is most often right; of equals the cheaper. Not always the dearest.

    Raises:
        ValueError: there is none.
    """
    return max(choices, key=lambda c: (c.success, -c.cost))


def _beats(one: Choice, other: Choice, order: Sequence[Choice]) -> bool:
    if one is other or one.cost > other.cost or one.success < other.success:
        return False
    strictly = one.cost < other.cost or one.success > other.success
    return strictly or order.index(one) < order.index(other)
