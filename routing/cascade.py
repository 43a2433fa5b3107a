"""Which model to begin with, when to ask a dearer one, and whose answer to keep.

A policy begins each kind on one model. Its attempt's answer and confidence tell how likely it is
right, and how likely the answer kept would be right after a dearer model was asked as well; the
gain is held against a price. Of two answers that differ, the one likelier right is kept. The price
is the one parameter of a path from the most accurate policy to the cheapest. By this each label has
a threshold of its own: one on which nothing dearer is better is never escalated (Chen, Zaharia and
Zou 2020, "FrugalML", learn thresholds and add-on services by label, too).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from routing.attempts import Attempts, Floats, Ints
from routing.logistic import Linear, fit, log_odds, probability
from routing.special import expit

PRICES = 100
"""Prices on a path."""

Said = tuple[int, float | None]
"""One attempt's answer, as its code or -1, and its confidence."""


@dataclass(frozen=True)
class Step:
    """From one model on to another: by index.

    ``kept`` gives the log-odds that the answer kept in the end is right, from the lower attempt
    alone; ``lower`` and ``upper`` those of both answers where they differ, from both attempts.
    """

    below: int
    above: int
    kept: tuple[Linear, ...]
    lower: tuple[Linear, ...]
    upper: tuple[Linear, ...]

    def keeps_lower(self, rows: Attempts) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """In which rows the lower model's answer is kept though the upper one's differs."""
        below, above = rows.answer[:, self.below], rows.answer[:, self.above]
        lower, upper = log_odds(self.lower, rows), log_odds(self.upper, rows)
        return np.asarray(_prefers_lower(below, above, lower, upper))

    def keeps_lower_at(self, kind: int, below: Said, above: Said) -> bool:
        """The same of one row."""
        said = {self.below: below, self.above: above}
        lower, upper = (sum(part.at(kind, *said[part.model]) for part in parts)
                        for parts in (self.lower, self.upper))  # fmt: skip
        return bool(_prefers_lower(below[0], above[0], lower, upper))


@dataclass(frozen=True)
class Outcome:
    """What became of ``n`` rows: right or not (0 or 1), dollars, and the last model asked."""

    correct: Floats
    cost: Floats
    last: Ints


@dataclass(frozen=True)
class Path:
    """All policies of a fit, by price: from 0, the most accurate, upwards to the cheapest.

    A price is how much more likely right an answer must be for one call of the top. ``starts``
    (prices, kinds) is the model that each kind begins with; ``cost`` is of one call of each model,
    in calls of the top.
    """

    models: tuple[str, ...]
    cost: Floats
    own: Mapping[int, tuple[Linear, ...]]
    steps: tuple[Step, ...]
    prices: Floats
    starts: Ints

    def next(
        self, price: int, model: int, kind: int, answer: int, confidence: float | None
    ) -> int | None:
        """The model to ask after this attempt, or ``None`` if its answer is accepted.

        ``price`` is an index into ``prices``; an ``answer`` that is not known has -1.
        """
        best, found = 0.0, None
        for step in self.steps:
            if step.below == model:
                right = sum(part.at(kind, answer, confidence) for part in self.own[model])
                kept = sum(part.at(kind, answer, confidence) for part in step.kept)
                gain = float(expit(kept) - expit(right))
                value = gain - self.prices[price] * self.cost[step.above]
                if value > best:
                    best, found = value, step.above
        return found

    def scored(self, rows: Attempts) -> Scored:
        """The rows with everything that does not depend on the price."""
        gains, correct = {}, {}
        for step in self.steps:
            kept = probability(step.kept, rows) - probability(self.own[step.below], rows)
            lower = step.keeps_lower(rows)
            gains[step.below, step.above] = kept
            below, above = rows.correct[:, step.below], rows.correct[:, step.above]
            correct[step.below, step.above] = np.where(lower, below, above)
        return Scored(rows, self.cost, gains, correct)


@dataclass(frozen=True)
class Scored:
    """Rows with the expected gain of each step and whether its kept answer is right."""

    rows: Attempts
    cost: Floats
    gains: Mapping[tuple[int, int], Floats]
    correct: Mapping[tuple[int, int], Floats]

    def begin(self, model: int, price: float) -> Outcome:
        """All rows begun on one model, at this price."""
        best = np.zeros(len(self.rows))
        right, cost = self.rows.correct[:, model], self.rows.cost[:, model]
        last = np.full(len(self.rows), model)
        for (below, above), gain in self.gains.items():
            if below == model:
                value = gain - price * self.cost[above]
                go = value > best
                best = np.where(go, value, best)
                right = np.where(go, self.correct[below, above], right)
                cost = np.where(go, self.rows.cost[:, below] + self.rows.cost[:, above], cost)
                last = np.where(go, above, last)
        return Outcome(right, cost, last)

    def at(self, price: float, starts: Ints) -> Outcome:
        """Every row begun on the model of its kind."""
        mine = starts[self.rows.kind]
        first, *others = np.unique(mine)
        found = self.begin(int(first), price)
        for model in others:
            other, here = self.begin(int(model), price), mine == model
            found = Outcome(
                np.where(here, other.correct, found.correct),
                np.where(here, other.cost, found.cost),
                np.where(here, other.last, found.last),
            )
        return found


def learn(rows: Attempts, prices: Floats | None = None) -> Path:
    """The path of policies that labelled rows teach; its prices are chosen to fit unless given."""
    models = rows.worthwhile
    cost = rows.mean_cost / max(float(rows.mean_cost[rows.top]), 1e-12)
    able = [model for model in models if rows.tells(model)]
    pairs = [(a, b) for a in able for b in models if models.index(b) > models.index(a)]
    own = {model: fit(rows, [model], rows.correct[:, model]) for model in able}
    path = Path(rows.models, cost, own, tuple(_step(rows, a, b) for a, b in pairs),
                np.zeros(0), np.zeros((0, len(rows.kinds)), dtype=np.int64))  # fmt: skip
    scored = path.scored(rows)
    found = _prices(scored, models) if prices is None else prices
    starts = np.stack([_starts(scored, models, price) for price in found])
    return Path(path.models, path.cost, path.own, path.steps, found, starts)


def _step(rows: Attempts, below: int, above: int) -> Step:
    differ = rows.take(_differ(rows.answer[:, below], rows.answer[:, above]))
    both = [below, above]
    lower = fit(differ, both, differ.correct[:, below])
    upper = fit(differ, both, differ.correct[:, above])
    step = Step(below, above, (), lower, upper)
    kept = np.where(step.keeps_lower(rows), rows.correct[:, below], rows.correct[:, above])
    return Step(below, above, fit(rows, [below], kept), lower, upper)


def _differ(below: Any, above: Any) -> Any:
    """Whether two answers, or which of many, are known and not the same; by their codes."""
    return (below != above) & (below >= 0) & (above >= 0)


def _prefers_lower(below: Any, above: Any, lower: Any, upper: Any) -> Any:
    """Whether the lower of two answers is kept, or in which of many rows, by their log-odds."""
    return _differ(below, above) & (expit(lower) > expit(upper))


def _starts(scored: Scored, models: tuple[int, ...], price: float) -> Ints:
    """The model that each kind had best begin with, judged against the cheapest by kind."""
    rows = scored.rows
    base = scored.begin(models[0], price)
    values = [np.zeros(len(rows.kinds))]
    for model in models[1:]:
        found = scored.begin(model, price)
        dearer = (found.cost - base.cost) / max(float(rows.mean_cost[rows.top]), 1e-12)
        better = found.correct - base.correct
        values.append(rows.by_kind(better) - rows.by_kind(price * dearer))
    return np.asarray(np.array(models, dtype=np.int64)[np.argmax(values, axis=0)])


def _prices(scored: Scored, models: tuple[int, ...]) -> Floats:
    """Prices at which about equally many rows change their mind, from 0 to where none is left."""
    rows = scored.rows
    found = [np.zeros(1)]
    for (_, above), gain in scored.gains.items():
        found.append(gain / max(float(scored.cost[above]), 1e-12))
    base = models[0]
    for model in models[1:]:
        gain = rows.by_kind(rows.correct[:, model] - rows.correct[:, base])
        found.append(gain / max(float(scored.cost[model] - scored.cost[base]), 1e-12))
    turns = np.concatenate(found)
    turns = turns[turns > 0]
    inner = np.quantile(turns, np.linspace(0, 1, PRICES - 1)) if turns.size else np.zeros(0)
    return np.unique(np.concatenate([np.zeros(1), inner, [2 * inner[-1]] if inner.size else []]))
