"""Exact statistics of residues, and the small regression that the later steps fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from config.errors import InputError
from producers.pipeline.work import StepError

Floats = NDArray[np.float64]
DIGITS = 6
"""Decimals that files keep of a float."""


@dataclass(frozen=True)
class ChiSquared:
    """Pearson's statistic, exactly, with its degrees of freedom."""

    statistic: Fraction
    freedom: int

    @property
    def p_value(self) -> float:
        """P(chi-squared with ``freedom`` degrees of freedom >= the statistic)."""
        from scipy.special import chdtrc  # its import takes longer than a command's start

        return float(chdtrc(self.freedom, float(self.statistic)))


def chi_squared(counts: Sequence[int | Fraction]) -> ChiSquared:
    """Pearson's test of equal frequencies: sum of (observed - expected)^2 / expected.

    Raises:
        InputError: fewer than two classes, or nothing was counted.
    """
    if len(counts) < 2 or sum(counts) <= 0:
        raise InputError(f"chi-squared of {len(counts)} counts: give two or more, not all 0")
    expected = Fraction(sum(counts)) / len(counts)
    squares = sum(((Fraction(one) - expected) ** 2 for one in counts), Fraction(0))
    return ChiSquared(squares / expected, len(counts) - 1)


def chi_squared_of_shares(percentages: Sequence[str], total: int) -> ChiSquared:
    """The same of shares in percent, as decimal text, of ``total`` observations."""
    return chi_squared([Fraction(Decimal(one)) * total / 100 for one in percentages])


def binomial_tail(n: int, share: float, least: int) -> float:
    """P(Binomial(n, share) >= least)."""
    from scipy.special import bdtrc

    return 1.0 if least <= 0 else float(bdtrc(least - 1, n, share))


def ridge(x: Floats, y: Floats, penalty: float) -> tuple[Floats, float]:
    """Weights and intercept of the least squares with ``penalty`` times the squared weights.

    Args:
        x: rows by features.
        y: one value a row.
        penalty: at least 0; of the sum of squares, not of the mean.
    """
    means, level = x.mean(axis=0), float(y.mean())
    centred = x - means
    gram = centred.T @ centred + penalty * np.eye(x.shape[1])
    weights: Floats = np.linalg.lstsq(gram, centred.T @ (y - level), rcond=None)[0]
    return weights, level - float(means @ weights)


def rmse(x: Floats, y: Floats, weights: Floats, intercept: float) -> float:
    """Root of the mean squared error of a linear model."""
    return float(np.sqrt(np.mean((x @ weights + intercept - y) ** 2)))


def folds(n: int, k: int, seed: int) -> list[NDArray[np.bool_]]:
    """``k`` masks of ``n`` rows, each row in one of them, shuffled by ``seed``.

    Raises:
        StepError: a fold would be empty.
    """
    if k > n:
        raise StepError(f"{n} rows do not make {k} folds: lower fold_counts or k_folds")
    order = np.random.default_rng(seed).permutation(n)
    return [np.isin(np.arange(n), order[start::k]) for start in range(k)]


def rounded(value: float) -> float:
    """A float as files keep it."""
    return round(float(value), DIGITS)
