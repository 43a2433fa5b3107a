"""The cheapest policy of a path that keeps a share of the top model's accuracy, and says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routing.attempts import Attempts, Floats
from routing.bounds import p_of_mean, p_of_next
from routing.cascade import Path, learn

FOLDS = 5
"""Parts that the rows are cut into; each is judged by a path that was learnt without it."""


@dataclass(frozen=True)
class Goal:
    """At least ``target`` of the top's accuracy, with probability ``1 - delta``.

    It is meant for the next ``ahead`` decisions; where none are named, for as many as there are
    labelled rows.
    """

    target: float = 0.95
    delta: float = 0.1
    ahead: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1:
            raise ValueError(f"target {self.target} must be above 0 and at most 1")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta {self.delta} must be above 0 and below 1")


@dataclass(frozen=True)
class Guaranteed:
    """A path, and which of its prices were chosen; ``None`` stands for always asking the top.

    ``certified`` is the cheapest that is shown to meet the goal.
    ``p`` has the p-values of those that were tested.
    """

    path: Path
    top: int
    certified: int | None
    p: tuple[float, ...]


def guarantee(rows: Attempts, goal: Goal, seed: int = 0) -> Guaranteed:
    """Learn a path and find the cheapest price that meets the goal.

    The loss of a row is ``target * top right - policy right``, both on the same row; its mean is 0
    or less exactly where the goal is met. Prices are tested from the lowest up until one cannot be
    shown to meet it (fixed-sequence testing), each by rows that its path had not seen.
    """
    path = learn(rows)
    losses = _losses(rows, path, goal, seed)
    ahead = goal.ahead or len(rows)
    heaviest = float(rows.weight.max())
    certified, p = None, []
    for price, loss in enumerate(losses):
        p.append(p_of_goal(loss, heaviest, goal, ahead))
        if p[-1] > goal.delta:
            break
        certified = price
    return Guaranteed(path, rows.top, certified, tuple(p))


def p_of_goal(loss: Floats, heaviest: float, goal: Goal, ahead: int) -> float:
    """P-value of "the goal is missed", for losses that are weighted by ``heaviest`` at most.

    The larger of two: that the mean loss of all decisions there may be is above 0, which needs no
    large sample; and that the mean of the next ``ahead`` is, which has chance of its own.
    """
    sure = p_of_mean(loss, -heaviest, heaviest * goal.target, goal.delta)
    return max(sure, p_of_next(loss, ahead, FOLDS))


def _losses(rows: Attempts, path: Path, goal: Goal, seed: int) -> Floats:
    """(prices, n) weighted losses; each row's by a path of the other folds; shuffled."""
    order = np.random.default_rng(seed).permutation(len(rows))
    found = np.empty((path.prices.size, len(rows)))
    for part in np.array_split(order, FOLDS):
        mask = np.ones(len(rows), dtype=bool)
        mask[part] = False
        other = learn(rows.take(mask), path.prices)
        scored = other.scored(rows.take(part))
        top = goal.target * rows.correct[part, rows.top]
        for place, price in enumerate(path.prices):
            found[place, part] = top - scored.at(price, other.starts[place]).correct
    return np.asarray((found * rows.weight)[:, order])
