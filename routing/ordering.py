"""How well questions are ordered by what the strong model would add: RouteLLM's measures.

PGR is the share of the gap between a weak and a strong model that routing recovers; APGR its mean
over all shares of strong calls; CPT(x) the share of strong calls that recovers x (Ong et al. 2024,
"RouteLLM", section 3.1). Questions that are not told apart are taken in every order at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routing.attempts import Attempts, Floats
from routing.logistic import fit, probability


@dataclass(frozen=True)
class Ordering:
    """``cpt50`` and ``cpt80`` are shares of strong calls; all are ``None`` if there is no gap."""

    apgr: float | None = None
    cpt50: float | None = None
    cpt80: float | None = None


def measure(gain: Floats, score: Floats, weight: Floats) -> Ordering:
    """Of rows by falling ``score``; ``gain`` (n) is strong minus weak, right or not."""
    total = float(gain @ weight)
    if total <= 0:
        return Ordering()
    _, group = np.unique(-score, return_inverse=True)
    share = np.concatenate([[0.0], np.cumsum(np.bincount(group, weight)) / weight.sum()])
    recovered = np.concatenate([[0.0], np.cumsum(np.bincount(group, weight * gain)) / total])
    area = float(np.trapezoid(recovered, share))
    return Ordering(area, _reach(share, recovered, 0.5), _reach(share, recovered, 0.8))


def gain_score(learnt: Attempts, rows: Attempts, weak: int, strong: int) -> Floats:
    """How much more likely right the strong model is expected to be, by row.

    From the weak model's attempt where it tells its confidence, else from the kind alone; learnt
    from other rows.
    """
    if learnt.tells(weak):
        parts = [fit(learnt, [weak], learnt.correct[:, model]) for model in (weak, strong)]
        return probability(parts[1], rows) - probability(parts[0], rows)
    gain = learnt.by_kind(learnt.correct[:, strong] - learnt.correct[:, weak])
    return np.asarray(gain[rows.kind])


def _reach(share: Floats, recovered: Floats, level: float) -> float:
    place = int(np.argmax(recovered >= level))
    low, high = recovered[place - 1], recovered[place]
    part = (level - low) / (high - low)
    return float(share[place - 1] + part * (share[place] - share[place - 1]))
