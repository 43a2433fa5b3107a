"""Whether scores still come as they did when a certificate or policy was made: a test on a stream.

A conformal test martingale (Vovk, Gammerman and Shafer 2005, chapter 7): each score's rank among
all before it is even between 0 and 1 as long as nothing changes, whatever the scores' distribution,
and a gambler who bets that it is not wins more than ``1 / alpha`` times the stake with probability
``alpha`` at most (Ville 1939), however long the stream is watched.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

ALPHA = 0.01
"""The chance of a false alarm in the whole life of a watch."""
BETS = (-1.5, 0.0, 1.5)
"""Slopes of the bet on a rank; between -2 and 2."""
JUMP = 0.01
"""How much of the stake changes its bet each time: the simple jumper of Vovk et al. 2021
("Retrain or not retrain: conformal test martingales for change-point detection")."""
MOST = 1000
"""Scores of the time it was made that are kept for comparison."""
EPISODE = 2000
"""Scores after which the watch begins anew, to forget; each has its share of alpha."""


@dataclass(frozen=True)
class Watch:
    """The state of the test; :meth:`as_json` and :func:`from_json` keep it.

    ``reference`` are scores of the labelled answers, ``stream`` those of the current episode.
    ``stakes`` are the capitals by bet, those on the ranks first, then those on their distance from
    the middle; they start at 1 in all.
    """

    reference: tuple[float, ...]
    stream: tuple[float, ...] = ()
    stakes: tuple[float, ...] = (1 / (2 * len(BETS)),) * (2 * len(BETS))
    episode: int = 1
    alpha: float = ALPHA
    seed: int = 0
    drifted: bool = False

    @property
    def capital(self) -> float:
        """How many times the stake has been won in this episode."""
        return math.fsum(self.stakes)

    @property
    def bar(self) -> float:
        """The capital at which the alarm is raised; episodes spend ``6 alpha / (pi k)**2`` each."""
        return (math.pi * self.episode) ** 2 / (6 * self.alpha)

    def as_json(self) -> dict[str, Any]:
        """The state as plain data."""
        return asdict(self)


def from_json(state: dict[str, Any]) -> Watch:
    """The watch that :meth:`Watch.as_json` was taken of."""
    lists = {key: tuple(state[key]) for key in ("reference", "stream", "stakes")}
    return Watch(**{**state, **lists})


def begin(scores: Sequence[float], *, alpha: float = ALPHA, seed: int = 0) -> Watch:
    """A watch that compares with ``scores``, or with :data:`MOST` of them drawn at random."""
    kept = list(scores)
    if len(kept) > MOST:
        kept = Random(seed).sample(kept, MOST)
    return Watch(tuple(sorted(kept)), alpha=alpha, seed=seed)


def watch(state: Watch, scores: Iterable[float]) -> Watch:
    """The state after more scores; once it has ``drifted`` it stays so."""
    seen = sorted((*state.reference, *state.stream))
    stream, stakes, episode = list(state.stream), list(state.stakes), state.episode
    for score in scores:
        if state.drifted:
            break
        if len(stream) >= EPISODE:
            stream, seen, episode = [], list(state.reference), episode + 1
            stakes = list(Watch(()).stakes)
        insort(seen, score)
        stream.append(score)
        stakes = _bet(stakes, _rank(seen, score, f"{state.seed}.{episode}.{len(stream)}"))
        state = replace(state, stakes=tuple(stakes), episode=episode)
        state = replace(state, drifted=state.capital >= state.bar)
    return replace(state, stream=tuple(stream))


def means(state: Watch) -> str:
    """How the scores have changed, in words."""
    since = f"{sum(state.stream) / max(1, len(state.stream)):.3f} in the {len(state.stream)} since"
    if not state.reference:
        return f"mean {since}, among which they changed"
    before = sum(state.reference) / len(state.reference)
    return f"mean {before:.3f} when it was made, {since}"


def _rank(seen: Sequence[float], score: float, name: str) -> float:
    """The share of scores below, ties broken at random; even on (0, 1) if nothing changes."""
    below, up_to = bisect_left(seen, score), bisect_right(seen, score)
    return (below + Random(name).random() * (up_to - below)) / len(seen)


def _bet(stakes: Sequence[float], rank: float) -> list[float]:
    half = len(BETS)
    found: list[float] = []
    for part, place in ((stakes[:half], rank), (stakes[half:], abs(2 * rank - 1))):
        spread = JUMP * math.fsum(part) / half
        found += [
            ((1 - JUMP) * stake + spread) * (1 + slope * (place - 0.5))
            for stake, slope in zip(part, BETS, strict=True)
        ]
    return found
