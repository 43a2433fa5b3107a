"""What one would do without any bound: the loosest rule that met the target on the rows it saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routing.attempts import Attempts
from routing.cascade import Outcome, Path


@dataclass(frozen=True)
class Threshold:
    """Ask ``below``; below this confidence ``above`` as well, whose answer is taken then."""

    below: int
    above: int
    confidence: float

    def outcome(self, rows: Attempts) -> Outcome:
        """What becomes of rows; an attempt without a confidence is never accepted."""
        sure = rows.confidence[:, self.below] >= self.confidence
        dear = rows.cost[:, self.below] + rows.cost[:, self.above]
        return Outcome(
            np.where(sure, rows.correct[:, self.below], rows.correct[:, self.above]),
            np.where(sure, rows.cost[:, self.below], dear),
            np.where(sure, self.below, self.above),
        )


def empirical_threshold(rows: Attempts, target: float) -> Threshold | None:
    """One confidence for all, from the cheapest model to the top: the loosest that met the target.

    ``None`` if none did, or if the cheapest tells no confidence.
    """
    below, above = rows.worthwhile[0], rows.top
    if below == above or not rows.tells(below):
        return None
    confidence = np.nan_to_num(rows.confidence[:, below], nan=-1.0)
    levels, place = np.unique(-confidence, return_inverse=True)
    gain = rows.weight * (rows.correct[:, below] - rows.correct[:, above])
    gains = np.zeros(levels.size)
    np.add.at(gains, place, gain)
    right = float(rows.weight @ rows.correct[:, above])
    met = (right + np.cumsum(gains) >= target * right) & (levels <= 0)
    loosest = np.flatnonzero(met)
    return Threshold(below, above, float(-levels[loosest[-1]])) if loosest.size else None


def empirical_price(rows: Attempts, path: Path, target: float) -> int | None:
    """The cheapest price of the path that met the target on the rows it was learnt from."""
    scored, best = path.scored(rows), None
    least, cheapest = target * rows.accuracy[rows.top], rows.mean_cost[rows.top]
    for place, price in enumerate(path.prices):
        found = scored.at(price, path.starts[place])
        cost = rows.mean(found.cost)
        if rows.mean(found.correct) >= least and cost <= cheapest:
            best, cheapest = place, cost
    return best
