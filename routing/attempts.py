"""Attempts of several models at the same questions, labelled: what routing is learnt from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from routing.history import shrunk

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNKNOWN = -1
"""Code of an answer that is not given or seldom seen."""
MOST_ANSWERS = 200


@dataclass(frozen=True)
class Attempts:
    """``n`` questions, each tried by all ``m`` models, the cheapest model first.

    ``kind`` (n) and ``answer`` (n, m) are indices into ``kinds`` and ``answers``; ``confidence``
    (n, m) is between 0 and 1, NaN where there is none; ``cost`` (n, m) is in dollars, a figure to
    take means of and never one that is billed; ``correct`` (n, m) is 0 or 1. ``weight`` (n) is how
    many questions a row stands for: the inverse of the probability with which it was labelled.
    """

    models: tuple[str, ...]
    kinds: tuple[str, ...]
    answers: tuple[str, ...]
    kind: Ints
    answer: Ints
    confidence: Floats
    cost: Floats
    correct: Floats
    weight: Floats

    def __len__(self) -> int:
        return int(self.kind.size)

    def take(self, rows: NDArray[np.bool_] | Ints) -> Attempts:
        """The rows of a mask or of indices."""
        return replace(
            self, kind=self.kind[rows], answer=self.answer[rows], cost=self.cost[rows],
            confidence=self.confidence[rows], correct=self.correct[rows], weight=self.weight[rows],
        )  # fmt: skip

    @cached_property
    def accuracy(self) -> Floats:
        """The share of right answers of each model."""
        return self.mean(self.correct)

    @cached_property
    def mean_cost(self) -> Floats:
        """Dollars a call of each model."""
        return self.mean(self.cost)

    @cached_property
    def top(self) -> int:
        """The most accurate model; of equals the cheapest."""
        return int(np.argmax(self.accuracy))

    @cached_property
    def worthwhile(self) -> tuple[int, ...]:
        """Models that no other one beats by being no dearer and no less accurate, cheapest first.

        The last of them is the top; a dearer model that is worse is left out.
        """
        best, found = -1.0, []
        for model in np.lexsort((-self.accuracy, self.mean_cost)):
            if self.accuracy[model] > best:
                best = float(self.accuracy[model])
                found.append(int(model))
        return tuple(found)

    def tells(self, model: int) -> bool:
        """Whether a model's attempts mostly come with a confidence, so that one may wait for it."""
        return bool(np.mean(~np.isnan(self.confidence[:, model])) > 0.5)

    def mean(self, values: Floats) -> Floats:
        """The weighted mean of ``values`` (n, ...) over the rows."""
        return np.asarray(np.average(values, axis=0, weights=self.weight))

    def by_kind(self, values: Floats) -> Floats:
        """The mean of ``values`` (n) by kind, drawn to the mean of all where rows are few."""
        mean = float(self.mean(values))
        spread = float(self.mean((values - mean) ** 2))
        sums, n = np.zeros(len(self.kinds)), np.zeros(len(self.kinds))
        np.add.at(sums, self.kind, self.weight * values)
        np.add.at(n, self.kind, self.weight)
        return shrunk(sums, n, mean, spread)


@dataclass(frozen=True)
class Tried:
    """One model's attempt: its answer and confidence where it gave them, dollars, right or not."""

    answer: str | None
    confidence: float | None
    cost_usd: float
    correct: bool


@dataclass(frozen=True)
class Question:
    """A question of a kind, tried by every model, in the order of the models."""

    kind: str
    tried: tuple[Tried, ...]
    weight: float = 1.0


def tabulate(models: Sequence[str], questions: Sequence[Question]) -> Attempts:
    """The questions as arrays. Of the answers the :data:`MOST_ANSWERS` commonest are told apart.

    Raises:
        ValueError: there is no question, or one was not tried once by each model.
    """
    if not questions or any(len(q.tried) != len(models) for q in questions):
        raise ValueError(f"each of {len(questions)} questions needs {len(models)} attempts")
    kinds = sorted({q.kind for q in questions})
    counts = Counter(t.answer for q in questions for t in q.tried if t.answer is not None)
    answers = sorted(answer for answer, _ in counts.most_common(MOST_ANSWERS))
    kind_of = {kind: place for place, kind in enumerate(kinds)}
    code: dict[str | None, int] = {answer: place for place, answer in enumerate(answers)}

    def column(of: Callable[[Tried], float]) -> Floats:
        return np.array([[of(t) for t in q.tried] for q in questions], dtype=float)

    return Attempts(
        models=tuple(models),
        kinds=tuple(kinds),
        answers=tuple(answers),
        kind=np.array([kind_of[q.kind] for q in questions], dtype=np.int64),
        answer=column(lambda t: code.get(t.answer, UNKNOWN)).astype(np.int64),
        confidence=column(lambda t: np.nan if t.confidence is None else t.confidence),
        cost=column(lambda t: t.cost_usd),
        correct=column(lambda t: t.correct),
        weight=np.array([q.weight for q in questions], dtype=float),
    )
