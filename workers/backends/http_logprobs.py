"""Probabilities of labels from the log-probabilities of an answer's tokens."""

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

    Servers tell what else could have stood in the place of each token of the answer, and nothing of
    how that would have gone on. So the answer's own label is followed to its last token, and any
    other counts with the token that begins it and no other label, whatever its case: with more than
    it has. What the answer's label is said to have is therefore no more than it has, as far as it
    has one spelling. Where a token begins several labels, the next position divides them, if the
    answer went there; else nothing is made up. A label that is not listed has at most the
    probability of the last one that is.
    """
    folded = [label.casefold() for label in labels]
    if len(set(folded)) < len(folded):
        return None
    scores = [0.0] * len(folded)
    said, weight, still = "", 1.0, set(range(len(folded)))
    for place in positions:
        fitting = _add(place, said, weight, folded, scores)
        if fitting is None:
            return None
        said += place.token
        going_on = set() if _is_said(said, fitting, folded) else set(fitting)
        if _hides(place, weight, still - going_on, scores):
            return None
        if not going_on:
            return _normalised(scores)
        still = going_on
        weight *= dict(place.likely).get(place.token, 0.0)
    return None


def _add(
    place: Position, said: str, weight: float, labels: Sequence[str], scores: list[float]
) -> list[int] | None:
    """Give each token's probability to its label, but that of the answer's own token only if it is
    the label's last; the labels that the answer still may name, or has named.

    ``None`` where much probability lies on tokens that fit several labels and were not taken.
    """
    own: list[int] = []
    shared = 0.0
    for token, probability in place.likely:
        text = said + token
        fitting = [i for i, label in enumerate(labels) if _fits(label, _bare(text))]
        if token == place.token:
            own = fitting
            counts = _is_said(text, fitting, labels)
        else:
            counts = len(fitting) == 1
            shared += weight * probability if len(fitting) > 1 and _bare(text) else 0.0
        if counts:
            scores[fitting[0]] += weight * probability
    return None if shared > UNSURE else own


def _is_said(text: str, fitting: Sequence[int], labels: Sequence[str]) -> bool:
    """Whether a text has named the one label that it fits, to its end."""
    return len(fitting) == 1 and len(_bare(text)) >= len(labels[fitting[0]])


def _bare(text: str) -> str:
    return text.lstrip().casefold()


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
