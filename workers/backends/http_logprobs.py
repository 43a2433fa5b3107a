"""Probabilities of labels from the log-probabilities of an answer's first tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from routing.choices import parse_choice

UNSURE = 0.01
"""Probability that may stay unknown: of a label that is not listed, of tokens that fit several."""
LEAST_MASS = 1e-6


@dataclass(frozen=True)
class Position:
    """One token of an answer, and the likeliest tokens in its place with their probabilities."""

    token: str
    likely: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Scores:
    """One probability a label, summing to 1, and the share of the whole that all labels hold."""

    probabilities: tuple[float, ...]
    mass: float

    @property
    def best(self) -> int:
        """The index of the likeliest label."""
        return max(range(len(self.probabilities)), key=lambda i: self.probabilities[i])


def position(token: str, logprob: float, likely: Iterable[tuple[str, float]]) -> Position:
    """A position from log-probabilities; servers write -9999 for minus infinity."""
    logs = dict(likely)
    logs.setdefault(token, logprob)  # what was drawn need not be among the likeliest
    return Position(token, tuple((text, math.exp(min(0.0, log))) for text, log in logs.items()))


def choose(labels: Sequence[str], raw: str, positions: Sequence[Position]) -> Scores | None:
    """The labels' probabilities, or ``None`` where ``raw`` has to speak for itself.

    That is also where the text, taken as a whole, names another label than the likeliest.
    """
    scores = score_labels(labels, positions)
    if scores is None or parse_choice(raw, labels) not in (None, labels[scores.best]):
        return None
    return scores


def score_labels(labels: Sequence[str], positions: Sequence[Position]) -> Scores | None:
    """The labels' probabilities, or ``None`` where the tokens do not tell them.

    A token counts for the one label that it begins, whatever its case. Where it begins several,
    the next position divides them, if the answer went there; else nothing is made up. A label that
    is not listed has at most the probability of the last one that is.
    """
    folded = [label.casefold() for label in labels]
    if len(set(folded)) < len(folded):
        return None
    scores = [0.0] * len(folded)
    said, weight, still = "", 1.0, set(range(len(folded)))
    for place in positions:
        going_on = _add(place, said, weight, folded, scores)
        if going_on is None:
            return None
        deeper = set(going_on) if len(going_on) > 1 else set()
        if _hides(place, weight, still - deeper, scores):
            return None
        if not deeper:
            return _normalised(scores)
        said, still = said + place.token, deeper
        weight *= dict(place.likely).get(place.token, 0.0)
    return None


def _add(
    place: Position, said: str, weight: float, labels: Sequence[str], scores: list[float]
) -> list[int] | None:
    """Give each token's probability to its label; the labels that the answer still may name.

    ``None`` where much probability lies on tokens that fit several labels and were not taken.
    """
    going_on: list[int] = []
    shared = 0.0
    for token, probability in place.likely:
        text = (said + token).lstrip().casefold()
        fitting = [i for i, label in enumerate(labels) if _fits(label, text)]
        if token == place.token:
            going_on = fitting
        if len(fitting) == 1:
            scores[fitting[0]] += weight * probability
        elif fitting and text and token != place.token:
            shared += weight * probability
    return None if shared > UNSURE else going_on


def _fits(label: str, text: str) -> bool:
    """Whether a text is the beginning of a label, or the label and its end."""
    if label.startswith(text):
        return True
    return text.startswith(label) and not (text[len(label)].isalnum() or text[len(label)] in "_-")


def _hides(place: Position, weight: float, told: set[int], scores: Sequence[float]) -> bool:
    """Whether a label that should be told of here could have more than is worth ignoring."""
    if all(scores[i] > 0 for i in told):
        return False
    listed = [p for _, p in place.likely]
    most = min(min(listed, default=1.0), max(0.0, 1.0 - sum(listed)))
    return weight * most > UNSURE


def _normalised(scores: Sequence[float]) -> Scores | None:
    mass = sum(scores)
    if mass < LEAST_MASS:
        return None
    return Scores(tuple(score / mass for score in scores), min(1.0, mass))
