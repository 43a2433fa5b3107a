"""How far a model's own label probabilities can be trusted, and how they are corrected.

A model leans towards some labels whatever it is asked, and is surer than it should be. Both are
undone in log-probabilities: ``calibrated = softmax((z - bias) / T)``, where ``z`` has the
log-probability of each label over the closed set (natural logarithm, in nats).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FLOOR = 1e-6
"""Least probability that is told apart from zero: the ledger keeps six digits."""
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a temperature."""
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The shares of a bias that are tried."""
BINS = 15
"""As in Guo et al. 2017."""
_STEPS = 60
_GOLDEN = (math.sqrt(5) - 1) / 2

Row = Sequence[float]
"""One value a label, in the order of the output's labels."""


@dataclass(frozen=True)
class Correction:
    """What is undone: ``bias`` in nats by label, empty for none; ``temperature`` has no unit."""

    bias: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0

    def fits(self, labels: Sequence[str]) -> bool:
        """Whether it was made for a choice between these labels."""
        return not self.bias or set(self.bias) == set(labels)

    @property
    def span(self) -> float:
        """How much the model favours its favourite label over its least liked one, in nats."""
        return max(self.bias.values()) - min(self.bias.values()) if self.bias else 0.0

    def apply(self, labels: Sequence[str], probabilities: Row) -> tuple[float, ...]:
        """Corrected probabilities of ``labels``, in their order, summing to 1.

        Raises:
            ValueError: it was made for other labels, or there is not one probability a label.
        """
        if not self.fits(labels) or len(labels) != len(probabilities):
            raise ValueError(f"a correction of {sorted(self.bias)} does not fit {list(labels)}")
        bias = [self.bias[label] for label in labels] if self.bias else ()
        return calibrated(log_probabilities(probabilities), bias, 1.0, self.temperature)


def log_probabilities(probabilities: Row) -> tuple[float, ...]:
    """Natural logarithms; what is below :data:`FLOOR` counts as that."""
    return tuple(math.log(max(p, FLOOR)) for p in probabilities)


def calibrated(z: Row, bias: Row, strength: float, temperature: float) -> tuple[float, ...]:
    """``softmax((z - strength * bias) / temperature)``; all rows have one value a label.

    The bias is that of Zhao et al. 2021 or of Zhou et al. 2024, the temperature that of Guo et
    al. 2017 ("On Calibration of Modern Neural Networks"). An empty bias is none.
    """
    return tuple(math.exp(x) for x in _log_softmax(z, bias, strength, temperature))


def contextual_bias(content_free: Sequence[Row]) -> tuple[float, ...]:
    """The bias that shows on inputs without content, in nats, its mean 0.

    Contextual calibration (Zhao et al. 2021, "Calibrate Before Use", section 5): the mean of the
    label probabilities over the content-free inputs; dividing by it is subtracting its logarithm.

    Args:
        content_free: label probabilities, one row an input.
    """
    mean = [math.fsum(column) / len(content_free) for column in zip(*content_free, strict=True)]
    return _centred(log_probabilities(mean))


def batch_bias(rows: Sequence[Row]) -> tuple[float, ...]:
    """The bias that shows on ordinary inputs, in nats, its mean 0.

    Batch calibration (Zhou et al. 2024, "Batch Calibration"): the mean of the labels'
    log-probabilities over inputs whose right answers need not be known. It takes for granted that
    the labels are about equally often right.

    Args:
        rows: label probabilities, one row an input.
    """
    mean = RunningMean()
    for row in rows:
        mean.add(log_probabilities(row))
    return _centred(mean.values)


class RunningMean:
    """The mean of rows that come one after another; ``values`` is empty before the first."""

    def __init__(self) -> None:
        self.count = 0
        self.values: tuple[float, ...] = ()

    def add(self, row: Row) -> None:
        """Take one more row in; all have the same length, else ``ValueError``."""
        self.count += 1
        old = self.values or (0.0,) * len(row)
        self.values = tuple(m + (x - m) / self.count for m, x in zip(old, row, strict=True))


@dataclass(frozen=True)
class Example:
    """Label log-probabilities ``z`` (nats) of a question whose right label is at ``right``."""

    z: tuple[float, ...]
    right: int


def loss(examples: Sequence[Example], bias: Row, strength: float, temperature: float) -> float:
    """Mean negative log-likelihood of the right labels, in nats."""
    total = (-_log_softmax(e.z, bias, strength, temperature)[e.right] for e in examples)
    return math.fsum(total) / len(examples)


def fit_temperature(examples: Sequence[Example], bias: Row, strength: float) -> float:
    """The temperature between :data:`COLDEST` and :data:`HOTTEST` with the least loss.

    The loss is convex in ``1 / T`` (Guo et al. 2017, section 4.2), so it has one valley in
    ``log T``: golden-section search finds it, the same each time.
    """

    def at(log_t: float) -> float:
        return loss(examples, bias, strength, math.exp(log_t))

    low, high = math.log(COLDEST), math.log(HOTTEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = at(left), at(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = at(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = at(right)
    return math.exp((low + high) / 2)


@dataclass(frozen=True)
class Fit:
    """A strength of a bias, the temperature that goes with it, and their loss in nats."""

    strength: float
    temperature: float
    loss: float


def fit(examples: Sequence[Example], bias: Row) -> Fit:
    """The strength among :data:`STRENGTHS` and the temperature with the least loss; of equals the
    weaker one."""
    fits = []
    for strength in STRENGTHS:
        temperature = fit_temperature(examples, bias, strength)
        fits.append(Fit(strength, temperature, loss(examples, bias, strength, temperature)))
    return min(fits, key=lambda f: f.loss)


def ece(confidences: Sequence[float], hits: Sequence[bool], bins: int = BINS) -> float:
    """Expected calibration error, between 0 and 1.

    Guo et al. 2017, equation 3: answers are put into ``bins`` equal ranges (lower, upper] of
    confidence; the error is the mean distance between confidence and share of hits, weighted by
    the answers in each.
    """
    held: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in zip(confidences, hits, strict=True):
        place = min(bins - 1, max(0, math.ceil(confidence * bins) - 1))
        held.setdefault(place, []).append((confidence, hit))
    gaps = (abs(math.fsum(c - h for c, h in inside)) for inside in held.values())
    return math.fsum(gaps) / len(confidences) if confidences else 0.0


def _log_softmax(z: Row, bias: Row, strength: float, temperature: float) -> tuple[float, ...]:
    leaning = bias or (0.0,) * len(z)
    scaled = [(x - strength * b) / temperature for x, b in zip(z, leaning, strict=True)]
    top = max(scaled)
    total = top + math.log(math.fsum(math.exp(x - top) for x in scaled))
    return tuple(x - total for x in scaled)


def _centred(row: Row) -> tuple[float, ...]:
    mean = math.fsum(row) / len(row)
    return tuple(x - mean for x in row)
