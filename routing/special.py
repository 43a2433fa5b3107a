"""SciPy's functions, imported with the first call: commands that need none start sooner."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike


def expit(logits: ArrayLike) -> Any:
    """``1 / (1 + exp(-logits))``, a probability each."""
    from scipy.special import expit

    return expit(logits)


def binomial_cdf(count: int, n: int, share: float) -> float:
    """P(Binomial(n, share) <= count)."""
    from scipy.special import bdtr

    return float(bdtr(count, n, share))


def beta_quantile(a: float, b: float, p: float) -> float:
    """The value below which a Beta(a, b) variable stays with probability ``p``."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, p))


def student_cdf(freedom: float, t: float) -> float:
    """P(T <= t) for Student's T with so many degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(freedom, t))
