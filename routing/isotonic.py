"""Probabilities of being right, read off confidence scores without a form laid upon them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from routing.confidence import Example, calibrated, ece, fit_temperature, log_probabilities

LEAST = 20
"""Rows below which nothing is fitted."""
HALVES = 2


@dataclass(frozen=True)
class Isotonic:
    """A rising curve through ``knots``, pairs of score and probability; straight between them."""

    knots: tuple[tuple[float, float], ...]

    def apply(self, score: float) -> float:
        """The probability of being right at this score, between 0 and 1."""
        knots = self.knots
        place = bisect_right(knots, (score, math.inf))
        if place == 0:
            return knots[0][1]
        if place == len(knots):
            return knots[-1][1]
        (left, low), (right, high) = knots[place - 1], knots[place]
        return low + (high - low) * (score - left) / (right - left)


@dataclass(frozen=True)
class Tempered:
    """Binary temperature scaling: ``sigmoid(logit(score) / temperature)``."""

    temperature: float

    def apply(self, score: float) -> float:
        """The probability of being right at this score, between 0 and 1."""
        return calibrated(_odds(score), (), 0.0, self.temperature)[0]


Curve = Isotonic | Tempered
Fit = Callable[[Sequence[float], Sequence[bool]], Curve]


def fit_isotonic(scores: Sequence[float], hits: Sequence[bool]) -> Isotonic:
    """The rising curve with the least squared error (pool adjacent violators, Ayer et al. 1955).

    Each pool is drawn at the mean of its scores (Oron and Flournoy 2017, "Centered isotonic
    regression"), so that different scores keep different probabilities.
    """
    from scipy.optimize import isotonic_regression  # slow to import, and seldom needed

    order = np.argsort(scores, kind="stable")
    xs, first = np.unique(np.asarray(scores, dtype=float)[order], return_index=True)
    ys = np.asarray(hits, dtype=float)[order]
    counts = np.diff(np.append(first, ys.size))
    means = np.add.reduceat(ys, first) / counts
    found = isotonic_regression(means, weights=counts)
    starts = found.blocks[:-1]
    places = np.add.reduceat(xs * counts, starts) / np.add.reduceat(counts, starts)
    values = np.clip(found.x[starts], 0.0, 1.0)
    return Isotonic(tuple((float(x), float(y)) for x, y in zip(places, values, strict=True)))


def fit_tempered(scores: Sequence[float], hits: Sequence[bool]) -> Tempered:
    """The temperature that makes the hits likeliest (Guo et al. 2017)."""
    examples = [Example(_odds(s), 0 if hit else 1) for s, hit in zip(scores, hits, strict=True)]
    return Tempered(fit_temperature(examples, (), 0.0))


def fit_curve(scores: Sequence[float], hits: Sequence[bool]) -> Curve:
    """Of both kinds the one with the less squared error (Brier 1950) on rows it was not fitted to.

    Every second row is held out in turn. Fewer than :data:`LEAST` rows leave scores as they are.
    """
    if len(scores) < LEAST:
        return Tempered(1.0)
    fits: tuple[Fit, ...] = (fit_tempered, fit_isotonic)
    return min(fits, key=lambda fit: _held_out_error(fit, scores, hits))(scores, hits)


def error_of(curve: Curve, scores: Sequence[float], hits: Sequence[bool]) -> float:
    """The expected calibration error of the curve's probabilities, between 0 and 1."""
    return ece([curve.apply(score) for score in scores], hits)


def _held_out_error(fit: Fit, scores: Sequence[float], hits: Sequence[bool]) -> float:
    total = 0.0
    for half in range(HALVES):
        other = 1 - half
        curve = fit(scores[other::HALVES], hits[other::HALVES])
        held = zip(scores[half::HALVES], hits[half::HALVES], strict=True)
        total += math.fsum((curve.apply(score) - hit) ** 2 for score, hit in held)
    return total


def _odds(score: float) -> tuple[float, float]:
    yes, no = log_probabilities((score, 1 - score))
    return yes, no
