"""Certified thresholds: how sure an answer has to be so that few accepted ones are wrong.

Learn-then-Test (Angelopoulos, Bates, Candes, Jordan and Lei 2021): every threshold on a path from
strict to loose is a claim "more than alpha of what it accepts is wrong" that labelled answers may
refute. What is refuted keeps the promise, all at once, with probability ``1 - delta``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from routing.bounds import p_of_mean, p_of_share, shared

REST = ""
"""The label of answers that have none."""
NEVER = 2.0
"""A threshold above every probability: such a label is not accepted."""
STARTS = 4
"""Places from which the path is walked; each has an equal share of delta."""
MOST_TESTED = 500
"""Thresholds of the path where rows count differently, which makes each test read all of them."""
ENOUGH = 4
"""How many times the fewest rows that can show anything a label needs to be tested alone."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scope:
    """What a certificate is of; ``template`` is name and version, as in ``next_action@1``."""

    kind: str
    lane: str
    model: str
    fingerprint: str
    template: str
    adapter: str = ""

    def change(self, served: Scope) -> str | None:
        """What is different of what is served now, in words; ``None`` if nothing is."""
        for one in fields(Scope):
            was, now = getattr(self, one.name), getattr(served, one.name)
            if was != now:
                return f"{one.name} was {was!r} and is {now!r}"
        return None


@dataclass(frozen=True)
class Judged:
    """An answer of which it is known whether it was right.

    ``p`` is the calibrated probability that it is, fitted on other rows than these;
    ``propensity`` the probability with which it came to be labelled, above 0.
    """

    p: float
    correct: bool
    label: str = REST
    propensity: float = 1.0


@dataclass(frozen=True)
class Promise:
    """Of accepted answers at most ``alpha`` are wrong, with probability ``1 - delta``."""

    alpha: float = 0.1
    delta: float = 0.1

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("delta", self.delta)):
            if not 0 < value < 1:
                raise ValueError(f"{name} {value} must be above 0 and below 1")

    @property
    def fewest(self) -> int:
        """Answers, all of them right, below which nothing can be shown: (1-alpha)^n <= delta."""
        return math.ceil(math.log(self.delta) / math.log1p(-self.alpha))


@dataclass(frozen=True)
class Certificate:
    """A promise about a scope, and the labelled answers that it rests on.

    ``thresholds`` has the least probability with which a label is accepted, for every label that
    an answer had; no other is accepted. ``n`` of the ``labels`` answers looked at reached their
    threshold, ``errors`` of them were wrong. ``delta`` is this certificate's own share.
    ``created_at`` is in microseconds since 1970 (UTC).
    """

    scope: Scope
    alpha: float
    delta: float
    thresholds: Mapping[str, float] = field(default_factory=dict)
    n: int = 0
    errors: int = 0
    labels: int = 0
    created_at: int = 0

    @property
    def holds(self) -> bool:
        """Whether anything is certified at all; if not, nothing is accepted by it."""
        return any(threshold <= 1 for threshold in self.thresholds.values())

    def threshold(self, label: str = REST) -> float | None:
        """The least probability with which ``label`` is accepted; ``None``: it never is."""
        found = self.thresholds.get(label, NEVER)
        return None if found > 1 else found

    def accepts(self, p: float | None, label: str = REST) -> bool:
        """Whether an answer may be taken below the top; one without a probability may not."""
        threshold = self.threshold(label)
        return p is not None and threshold is not None and p >= threshold

    def lapse(self, served: Scope) -> str | None:
        """Why the certificate does not hold for what is served now; ``None`` if it does."""
        return self.scope.change(served)


def certify(scope: Scope, rows: Sequence[Judged], promise: Promise, now: int) -> Certificate:
    """The loosest thresholds that keep the promise; none where the rows show too little.

    A label with :data:`ENOUGH` times the fewest rows that can show anything has a threshold and a
    share of delta of its own, and the promise holds for it alone; all others share one threshold,
    and the promise holds for them together. Which these are depends on their counts, never on what
    was right, so nothing is tested twice.
    """
    groups = _groups(rows, promise)
    thresholds: dict[str, float] = {}
    n = errors = 0
    shares = shared(promise.delta, [1.0] * len(groups)) if groups else []
    for own, share in zip(groups.values(), shares, strict=True):
        found = loosest(own, Promise(promise.alpha, share))
        least = NEVER if found is None else found
        thresholds |= dict.fromkeys(sorted({row.label for row in own}), least)
        accepted = [row for row in own if row.p >= least]
        n += len(accepted)
        errors += sum(not row.correct for row in accepted)
    return Certificate(
        scope, promise.alpha, promise.delta, thresholds, n, errors, len(rows), created_at=now
    )


def certify_all(
    rows: Mapping[Scope, Sequence[Judged]], promise: Promise, now: int
) -> dict[Scope, Certificate]:
    """Certificates that hold together: delta is divided evenly among the scopes (Bonferroni)."""
    if not rows:
        return {}
    own = Promise(promise.alpha, shared(promise.delta, [1.0] * len(rows))[0])
    return {scope: certify(scope, found, own, now) for scope, found in rows.items()}


def loosest(rows: Sequence[Judged], promise: Promise) -> float | None:
    """The lowest threshold on ``p`` that keeps the promise, or ``None``.

    Fixed-sequence testing: from each of :data:`STARTS` thresholds on, looser ones are tested in
    turn until one cannot be shown to keep it. Where to start depends on how many rows reach a
    threshold, not on what was right.
    """
    share = Promise(promise.alpha, promise.delta / STARTS)
    p = np.array([row.p for row in rows])
    wrong = np.array([not row.correct for row in rows], dtype=float)
    weight = np.array([1 / row.propensity for row in rows])
    if p.size < share.fewest:
        return None
    path = _path(p, weight)
    test = _tester(p, wrong, weight, share)
    best: float | None = None
    for start in _starts(p, path, share.fewest):
        for threshold in path[start:]:
            if test(threshold) > share.delta:
                break
            best = threshold if best is None else min(best, threshold)
    return None if best is None else float(best)


def _tester(p: Floats, wrong: Floats, weight: Floats, promise: Promise) -> Callable[[float], float]:
    """The p-value of "what this threshold accepts is wrong too often".

    Exact for a share where all were labelled with the same probability; else each row counts by
    the inverse of its own (Horvitz and Thompson 1952), and the mean of that is bet against.
    """
    heaviest = float(weight.max())
    seen: dict[float, float] = {}

    def test(threshold: float) -> float:
        if threshold not in seen:
            taken = p >= threshold
            if np.ptp(weight[taken]) == 0:
                errors = int(wrong[taken].sum())
                seen[threshold] = p_of_share(errors, int(taken.sum()), promise.alpha)
            else:
                loss = weight * taken * (wrong - promise.alpha)
                most, least = heaviest * (1 - promise.alpha), -heaviest * promise.alpha
                seen[threshold] = p_of_mean(loss, least, most, promise.delta)
        return seen[threshold]

    return test


def _path(p: Floats, weight: Floats) -> list[float]:
    """Thresholds from strict to loose: every score, or where weights differ, quantiles of them.

    Which these are depends on the scores alone, so that the tests hold as they do for all.
    """
    path = -np.unique(-p)
    if path.size > MOST_TESTED and np.ptp(weight) > 0:
        path = path[np.linspace(0, path.size - 1, MOST_TESTED).round().astype(int)]
    return [float(x) for x in path]


def _starts(p: Floats, path: Sequence[float], fewest: int) -> Iterator[int]:
    """Indices on the path at which ``fewest`` rows, then by equal factors more, are reached."""
    ordered = -np.sort(-p)
    for step in range(STARTS):
        rows = int(fewest * (p.size / fewest) ** (step / STARTS))
        # The first on a thinned path that as many reach.
        yield next(i for i, threshold in enumerate(path) if threshold <= ordered[rows - 1])


def _groups(rows: Sequence[Judged], promise: Promise) -> dict[str, list[Judged]]:
    counts = Counter(row.label for row in rows)
    able = {label for label, n in counts.items() if n >= ENOUGH * promise.fewest}
    groups: dict[str, list[Judged]] = {label: [] for label in sorted(able)} if able else {}
    for row in rows:
        groups.setdefault(row.label if row.label in able else REST, []).append(row)
    return groups
