"""Probabilities by kind, answer and confidence of attempts: logistic regression with shrinkage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.attempts import Attempts, Floats, Ints
from routing.special import expit

SELDOM = 20
"""Rows of a (kind, answer) below which it has no terms of its own."""
LEAN = 0.7
"""Scale of the terms of kinds and answers beside the common ones: they are shrunk twice as much."""
RIDGE = 1.0
"""Weight of the squared coefficients: a normal prior with variance 1."""
INTERCEPT_RIDGE = 1e-3
LOW, HIGH = -6.0, 8.0
"""Logits of confidence are cut off here."""
EDGE = 1e-6
STEPS = 25
CLOSE = 1e-6

Terms = NDArray[np.float64]
Number = Any
"""One attempt's figure, or an array of many attempts': the same formula holds for both."""


@dataclass(frozen=True)
class Linear:
    """A model's part of the log-odds, in nats.

    ``common`` has the terms 1, x, x**2 / 2 and "no confidence"; ``kinds`` (kinds, 2) and
    ``answers`` (kinds, answers + 1, 2) have an offset and a slope on x; the last answer stands for
    those that are unknown. ``x`` is half the logit of the confidence.
    """

    model: int
    common: Terms
    kinds: Terms
    answers: Terms

    def of(self, rows: Attempts) -> Floats:
        """The log-odds of each row."""
        x, gone = _scale(rows.confidence[:, self.model])
        own = self.kinds[rows.kind] + self.answers[rows.kind, rows.answer[:, self.model]]
        return np.asarray(self._sum(x, gone, own[:, 0], own[:, 1]))

    def at(self, kind: int, answer: int, confidence: float | None) -> float:
        """The log-odds of one attempt: the same to the last digit as those of its row."""
        x = 0.0
        if confidence is not None:
            p = min(max(confidence, EDGE), 1 - EDGE)
            # numpy's logarithm, as for rows: another's last digit may differ
            x = min(max(float(np.log(p / (1 - p))), LOW), HIGH) / 2
        kinds, answers = self.kinds[kind], self.answers[kind, answer]
        gone = 1.0 if confidence is None else 0.0
        return float(self._sum(x, gone, kinds[0] + answers[0], kinds[1] + answers[1]))

    def _sum(self, x: Number, gone: Number, offset: Number, slope: Number) -> Number:
        a, b, c, d = self.common
        return a + x * (b + x * c / 2) + gone * d + offset + slope * x


def fit(rows: Attempts, models: Sequence[int], hits: Floats) -> tuple[Linear, ...]:
    """One part a model; their sum is the log-odds of ``hits`` (n; 0 or 1).

    The largest penalised likelihood, by Newton's method (le Cessie and van Houwelingen 1992).
    """
    spaces = [_Space(rows, model) for model in models]
    x = np.concatenate([space.terms(rows) for space in spaces], axis=1)
    w = _solve(x, hits, rows.weight)
    found, place = [], 0
    for space in spaces:
        found.append(space.linear(w[place : place + space.width]))
        place += space.width
    return tuple(found)


def probability(parts: Sequence[Linear], rows: Attempts) -> Floats:
    """The probability of a hit in each row."""
    return np.asarray(expit(log_odds(parts, rows)))


def log_odds(parts: Sequence[Linear], rows: Attempts) -> Floats:
    """The log-odds of a hit in each row."""
    total: Floats = np.sum([part.of(rows) for part in parts], axis=0)
    return total


class _Space:
    """Which terms the rows of a model have enough of."""

    def __init__(self, rows: Attempts, model: int) -> None:
        self.model = model
        self.size = len(rows.answers) + 1
        self.kinds = len(rows.kinds)
        counts = np.bincount(self._code(rows), minlength=self.kinds * self.size)
        counts.reshape(self.kinds, self.size)[:, -1] = 0
        self.often = np.flatnonzero(counts >= SELDOM)
        self.slot = np.full(counts.size, -1)
        self.slot[self.often] = np.arange(self.often.size)
        self.own_kinds = self.kinds if self.kinds > 1 else 0
        self.width = 4 + 2 * self.own_kinds + 2 * self.often.size

    def terms(self, rows: Attempts) -> Terms:
        """The design matrix, one row a question."""
        x, gone = _scale(rows.confidence[:, self.model])
        parts = [np.stack([np.ones(x.size), x, x**2 / 2, gone], axis=1)]
        codes = [(rows.kind, self.own_kinds), (self.slot[self._code(rows)], self.often.size)]
        for code, width in codes:
            hot = (code[:, None] == np.arange(width)) * LEAN
            parts += [hot, hot * x[:, None]]
        return np.concatenate(parts, axis=1)

    def linear(self, w: Terms) -> Linear:
        """The coefficients ``w`` laid out for look-up."""
        k, s = self.own_kinds, self.often.size
        kinds = np.zeros((self.kinds, 2))
        kinds[:k] = LEAN * w[4 : 4 + 2 * k].reshape(2, k).T
        answers = np.zeros((self.kinds * self.size, 2))
        answers[self.often] = LEAN * w[4 + 2 * k : 4 + 2 * (k + s)].reshape(2, s).T
        return Linear(self.model, w[:4], kinds, answers.reshape(self.kinds, self.size, 2))

    def _code(self, rows: Attempts) -> Ints:
        answer = rows.answer[:, self.model]
        return np.asarray(rows.kind * self.size + np.where(answer < 0, self.size - 1, answer))


def _scale(confidence: Floats) -> tuple[Floats, Floats]:
    gone = np.isnan(confidence)
    p = np.clip(np.where(gone, 0.5, confidence), EDGE, 1 - EDGE)
    return np.clip(np.log(p / (1 - p)), LOW, HIGH) / 2, gone.astype(float)


def _solve(x: Terms, y: Floats, weight: Floats) -> Terms:
    ridge = np.full(x.shape[1], RIDGE)
    ridge[0] = INTERCEPT_RIDGE
    w = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = expit(x @ w)
        slope = x.T @ (weight * (p - y)) + ridge * w
        curve = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        w = w - step / max(1.0, float(np.abs(step).max()) / 4)  # a first step may be far too long
        if np.abs(step).max() < CLOSE:
            break
    return w
