"""Scores a policy on rows that it has not seen, beside what needs no policy at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routing.attempts import Attempts
from routing.cascade import Outcome, Scored
from routing.confidence import ece
from routing.guarantee import Goal, Guaranteed, guarantee
from routing.isotonic import fit_curve
from routing.learnt import Learnt, learnt_of
from routing.naive import empirical_price, empirical_threshold
from routing.ordering import Ordering, gain_score, measure

ESCALATING = "not certifiable, escalating"
"""What is said where no policy is shown to meet the goal; everything goes to the top then."""


@dataclass(frozen=True)
class Score:
    """Shares of right answers, and mean cost of a decision; ratios are to always asking the top."""

    accuracy: float
    relative_accuracy: float
    cost_usd: float
    cost_ratio: float


@dataclass(frozen=True)
class Evaluation:
    """A policy learnt from calibration rows, scored on ``rows`` test rows.

    ``lane_share`` is the share of decisions that end on each model; ``frontier`` has (cost ratio,
    relative accuracy) of each price of the path, by cost. ``naive`` is one confidence
    threshold for all that met the target on the rows it was chosen by, where there are confidences;
    ``unbounded`` is the policy of the path that did, without any bound.
    """

    rows: int
    singles: Mapping[str, Score]
    top: str
    policy: Score
    lane_share: Mapping[str, float]
    goal: Goal
    certified: bool
    ordering: Ordering
    calibration_error: Mapping[str, float]
    stated_error: Mapping[str, float]
    random_at_same_rate: Score
    oracle: Score
    naive: Score
    unbounded: Score
    frontier: tuple[tuple[float, float], ...]
    learnt: Learnt | None
    """What was certified, as it may go live; ``None`` if nothing was."""

    @property
    def violated(self) -> bool:
        """Whether the test rows fell short of the target."""
        return self.policy.relative_accuracy < self.goal.target


@dataclass(frozen=True)
class Resplit:
    """One random half scored by what was learnt from the other."""

    certified: bool
    policy: Score
    naive: Score
    unbounded: Score


@dataclass(frozen=True)
class Rival:
    """A rule without a bound over all halves: how often it fell short, and its mean cost ratio.

    ``cost`` is the certified policy's by this one's; ``cost_where_met`` the same in the halves in
    which this one met the target, ``None`` without any.
    """

    violation_rate: float
    cost_ratio: float
    cost: float | None
    cost_where_met: float | None


@dataclass(frozen=True)
class Resplits:
    """``n`` random halves, each scored by what was learnt from the other."""

    n: int
    violation_rate: float
    certified_share: float
    relative_accuracy: float
    cost_ratio: float
    naive: Rival
    unbounded: Rival


def evaluate(calibration: Attempts, test: Attempts, goal: Goal, seed: int = 0) -> Evaluation:
    """Learn and certify on one part, score on the other."""
    found = guarantee(calibration, goal, seed)
    scored = found.path.scored(test)
    judge = _Judge(test, found.top)
    chosen = _outcome(found, scored, found.certified)
    share = {m: float(test.mean(chosen.last == k)) for k, m in enumerate(test.models)}
    stated, mended = _calibration(calibration, test)
    return Evaluation(
        rows=len(test),
        singles={m: judge.always(k) for k, m in enumerate(test.models)},
        top=test.models[found.top],
        policy=judge.score(chosen),
        lane_share=share,
        goal=goal,
        certified=found.certified is not None,
        ordering=_ordering(calibration, test, found.top),
        calibration_error=mended,
        stated_error=stated,
        random_at_same_rate=judge.random(chosen),
        oracle=judge.oracle(),
        naive=judge.score(_naive(calibration, scored, found, goal)),
        unbounded=judge.score(_unbounded(calibration, scored, found, goal)),
        frontier=_frontier(found, scored, judge),
        learnt=_certified(calibration, found),
    )


def resplits(
    rows: Attempts, goal: Goal, n: int, seed: int, told: Callable[[], None] = lambda: None
) -> Resplits:
    """Learn on a random half and score on the other, ``n`` times; ``told`` is called after each."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        order = rng.permutation(len(rows))
        half = len(rows) // 2
        found.append(_resplit(rows.take(order[:half]), rows.take(order[half:]), goal, seed))
        told()
    return summed_up(found, goal)


def summed_up(found: Sequence[Resplit], goal: Goal) -> Resplits:
    """The figures of all halves together."""
    policies = [one.policy for one in found]
    return Resplits(
        n=len(found),
        violation_rate=float(np.mean(_short(policies, goal))),
        certified_share=float(np.mean([one.certified for one in found])),
        relative_accuracy=float(np.mean([one.relative_accuracy for one in policies])),
        cost_ratio=float(np.mean(_costs(policies))),
        naive=_rival(policies, [one.naive for one in found], goal),
        unbounded=_rival(policies, [one.unbounded for one in found], goal),
    )


def _rival(policies: Sequence[Score], rivals: Sequence[Score], goal: Goal) -> Rival:
    short, ours, theirs = _short(rivals, goal), _costs(policies), _costs(rivals)

    def ratio(rows: NDArray[np.bool_]) -> float | None:
        paid = float(theirs[rows].sum())
        return float(ours[rows].sum()) / paid if paid else None

    everywhere = np.ones(len(rivals), dtype=bool)
    return Rival(float(short.mean()), float(theirs.mean()), ratio(everywhere), ratio(~short))


def _short(scores: Sequence[Score], goal: Goal) -> NDArray[np.bool_]:
    return np.array([one.relative_accuracy < goal.target for one in scores])


def _costs(scores: Sequence[Score]) -> NDArray[np.float64]:
    return np.array([one.cost_ratio for one in scores])


def _resplit(calibration: Attempts, test: Attempts, goal: Goal, seed: int) -> Resplit:
    found = guarantee(calibration, goal, seed)
    scored, judge = found.path.scored(test), _Judge(test, found.top)
    return Resplit(
        found.certified is not None,
        judge.score(_outcome(found, scored, found.certified)),
        judge.score(_naive(calibration, scored, found, goal)),
        judge.score(_unbounded(calibration, scored, found, goal)),
    )


class _Judge:
    """Scores outcomes on test rows against always asking the top."""

    def __init__(self, rows: Attempts, top: int) -> None:
        self.rows = rows
        self.accuracy = float(rows.accuracy[top])
        self.cost = float(rows.mean_cost[top])

    def score(self, outcome: Outcome) -> Score:
        return self._of(float(self.rows.mean(outcome.correct)), float(self.rows.mean(outcome.cost)))

    def always(self, model: int) -> Score:
        return self._of(float(self.rows.accuracy[model]), float(self.rows.mean_cost[model]))

    def random(self, outcome: Outcome) -> Score:
        """As many decisions end on each model, at the same cost, but drawn by lot."""
        weights = np.bincount(outcome.last, self.rows.weight, len(self.rows.models))
        accuracy = float(weights @ self.rows.accuracy / weights.sum())
        return self._of(accuracy, float(self.rows.mean(outcome.cost)))

    def oracle(self) -> Score:
        """The cheapest model that is right, known beforehand; the cheapest if none is."""
        rows = self.rows
        dear = np.where(rows.correct > 0, rows.cost, np.inf)
        cost = np.where(np.isinf(dear.min(axis=1)), rows.cost.min(axis=1), dear.min(axis=1))
        return self._of(float(rows.mean(rows.correct.max(axis=1))), float(rows.mean(cost)))

    def _of(self, accuracy: float, cost: float) -> Score:
        relative = accuracy / self.accuracy if self.accuracy else 1.0
        return Score(accuracy, relative, cost, cost / self.cost if self.cost else 1.0)


def _certified(rows: Attempts, found: Guaranteed) -> Learnt | None:
    return None if found.certified is None else learnt_of(rows, found.path, found.certified)


def _outcome(found: Guaranteed, scored: Scored, price: int | None) -> Outcome:
    if price is None:
        rows = scored.rows
        last = np.full(len(rows), found.top)
        return Outcome(rows.correct[:, found.top], rows.cost[:, found.top], last)
    return scored.at(found.path.prices[price], found.path.starts[price])


def _unbounded(learnt: Attempts, scored: Scored, found: Guaranteed, goal: Goal) -> Outcome:
    return _outcome(found, scored, empirical_price(learnt, found.path, goal.target))


def _naive(learnt: Attempts, scored: Scored, found: Guaranteed, goal: Goal) -> Outcome:
    threshold = empirical_threshold(learnt, goal.target)
    if threshold is not None:
        return threshold.outcome(scored.rows)
    return _unbounded(learnt, scored, found, goal)


def _frontier(found: Guaranteed, scored: Scored, judge: _Judge) -> tuple[tuple[float, float], ...]:
    scores = (judge.score(_outcome(found, scored, k)) for k in range(found.path.prices.size))
    return tuple(sorted((one.cost_ratio, one.relative_accuracy) for one in scores))


def _ordering(calibration: Attempts, test: Attempts, top: int) -> Ordering:
    weak = calibration.worthwhile[0]
    if weak == top:
        return Ordering()
    gain = test.correct[:, top] - test.correct[:, weak]
    return measure(gain, gain_score(calibration, test, weak, top), test.weight)


def _calibration(
    calibration: Attempts, test: Attempts
) -> tuple[dict[str, float], dict[str, float]]:
    """ECE of the models' own confidences, and of what is made of them; of those that have any."""
    stated, mended = {}, {}
    for model, name in enumerate(test.models):
        pairs = []
        for rows in (calibration, test):
            has = ~np.isnan(rows.confidence[:, model])
            pairs.append((rows.confidence[has, model].tolist(), rows.correct[has, model] > 0))
        (scores, hits), (own, right) = pairs
        if scores and own:
            curve = fit_curve(scores, hits.tolist())
            stated[name] = ece(own, right.tolist())
            mended[name] = ece([curve.apply(p) for p in own], right.tolist())
    return stated, mended
