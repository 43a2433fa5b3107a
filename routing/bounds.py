"""Bounds that hold for small samples too: exact for shares, by betting for means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from routing.special import beta_quantile, binomial_cdf, student_cdf

TRUNCATION = 0.75
"""Of what a bet may risk: Waudby-Smith and Ramdas 2023 recommend 1/2 or 3/4."""


def upper(errors: int, n: int, delta: float) -> float:
    """The largest share of errors that ``errors`` of ``n`` leave possible, between 0 and 1.

    One-sided, at confidence ``1 - delta``; exact (Clopper and Pearson 1934).

    Raises:
        ValueError: the counts are no counts, or delta is not between 0 and 1.
    """
    _check(errors, n, delta)
    return 1.0 if errors == n else beta_quantile(errors + 1, n - errors, 1 - delta)


def lower(hits: int, n: int, delta: float) -> float:
    """The smallest share of hits that is still possible; the mirror image of :func:`upper`."""
    return 1.0 - upper(n - hits, n, delta)


def p_of_share(errors: int, n: int, alpha: float) -> float:
    """P-value of "the share of errors is ``alpha`` or more": P(Binomial(n, alpha) <= errors).

    It is at most ``delta`` where :func:`upper` is at most ``alpha``.
    """
    _check(errors, n, 0.5)
    return binomial_cdf(errors, n, alpha) if n else 1.0


def p_of_mean(values: ArrayLike, least: float, most: float, delta: float) -> float:
    """P-value of "the mean of ``values`` is 0 or more", for values between ``least`` and ``most``.

    By betting: whoever bets against the claim multiplies the stake by ``1 - b (x - m)`` at each
    value, and if the claim holds, it ever grows ``1 / p``-fold with probability ``p`` at most
    (Ville 1939). The stakes ``b`` are those of Waudby-Smith and Ramdas 2023 ("Estimating means of
    bounded random variables by betting", section 4.3), meant for a test at level ``delta`` with
    all values. Values are in the order in which they came; it must not depend on what they are.
    """
    given = np.asarray(values, dtype=float)
    if given.size == 0 or least >= 0:
        return 1.0
    x = (given - least) / (most - least)
    m = -least / (most - least)
    if m >= 1:
        return 0.0 if most < 0 else 1.0
    count = np.arange(1, x.size + 1)
    mean = (0.5 + np.cumsum(x)) / (count + 1)
    spread = (0.25 + np.cumsum((x - mean) ** 2)) / (count + 1)
    before = np.concatenate(([0.25], spread[:-1]))
    bet = np.sqrt(2 * math.log(1 / delta) / (x.size * before))
    growth = np.cumsum(np.log1p(-np.minimum(bet, TRUNCATION / (1 - m)) * (x - m)))
    return float(min(1.0, math.exp(-max(0.0, float(growth.max())))))


def p_of_next(values: ArrayLike, ahead: int, folds: int = 1) -> float:
    """How likely the mean of the next ``ahead`` values is above 0, by what ``values`` were.

    The classical prediction interval for a future mean (Hahn 1969): the difference of two means
    has the variance ``s**2 (1/n + 1/ahead)``. With ``folds`` above 1 the values are errors of
    cross-validation, which are less sure than so many independent ones: ``1/n`` becomes
    ``(1 + folds / (folds - 1)) / n`` (Nadeau and Bengio 2003, "Inference for the generalization
    error", section 4). Exact for normal values, asymptotic for others; 1 for fewer than two.
    """
    given = np.asarray(values, dtype=float)
    n = given.size
    if n < 2:
        return 1.0
    doubt = 1.0 if folds == 1 else 1 + folds / (folds - 1)
    mean, scale = float(given.mean()), float(given.std(ddof=1)) * math.sqrt(doubt / n + 1 / ahead)
    if scale == 0:
        return 0.0 if mean <= 0 else 1.0
    return student_cdf(n - 1, mean / scale)


def shared(delta: float, weights: Sequence[float]) -> list[float]:
    """``delta`` divided among what is tested together, by weight (Bonferroni)."""
    total = math.fsum(weights)
    return [delta * weight / total for weight in weights]


def _check(count: int, n: int, delta: float) -> None:
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is no share: give counts from 0 to n")
    if not 0 < delta < 1:
        raise ValueError(f"delta {delta} must be above 0 and below 1")
