"""Fits the weights of words that speak for the math specialist.

Logistic regression on the distinct words of a prompt, with a Gaussian prior (Genkin, Lewis and
Madigan, Technometrics 49, 2007) around the word list of the pipeline's proposal, which puts
every listed word at ``LISTED``. Singular and plural share a weight. Solved by Newton's method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from config.load import read_toml
from config.strategies import Speciality
from routing.specialists import numbers_in, words_of

HERE = Path(__file__).parent
Floats = npt.NDArray[np.float64]

KNOWN = {name: frozenset(words) for name, words in read_toml(HERE / "words.toml").items()}
"""Words of which something is known before any query has been seen, by sort."""
LISTED = 1.0
"""The weight of a listed word before any query has been seen."""
PRECISION = 0.3
"""Of the prior: the smaller, the more the queries say."""
MOST_NUMBERS = 4
"""Numbers of a prompt that count."""
NEWTON_STEPS = 8
LEAST = 0.1
"""Words with less weight are left out of the file."""


@dataclass(frozen=True)
class Query:
    """A prompt and whether the math specialist is to answer it."""

    text: str
    math: bool


def queries(prefix: str = "") -> list[Query]:
    """The labelled queries of which weights are learned; with ``unseen_``, those kept apart."""
    return [
        Query(line, name == "math")
        for name in ("math", "general")
        for line in (HERE / f"{prefix}{name}.txt").read_text(encoding="utf-8").splitlines()
    ]


def fit(known: Sequence[Query]) -> Speciality:
    """The words' weights and the bias that the queries teach."""
    seen = sorted(
        set().union(*(words_of(q.text) for q in known)) | frozenset().union(*KNOWN.values())
    )
    seen = [word for word in seen if not numbers_in((word,))]
    stems = sorted({_stem(word) for word in seen})
    column = {stem: i for i, stem in enumerate(stems)}
    x = np.zeros((len(known), len(stems) + 2))
    x[:, -1] = 1.0
    for row, query in enumerate(known):
        words = words_of(query.text)
        x[row, -2] = min(numbers_in(words), MOST_NUMBERS)
        for word in words:
            if _stem(word) in column:
                x[row, column[_stem(word)]] = 1.0
    y = np.array([1.0 if query.math else 0.0 for query in known])
    before = _prior_weights()
    prior = np.array([*(before.get(stem, 0.0) for stem in stems), 0.0, 0.0])
    found = _newton(x, y, prior)
    weights = dict(zip(stems, found[:-2], strict=True))
    rounded = {form: round(float(weights[_stem(form)]), 2) for form in _forms(seen)}
    kept = {word: weight for word, weight in rounded.items() if abs(weight) >= LEAST}
    number, bias = (round(float(value), 2) for value in found[-2:])
    return Speciality(bias=bias, number=number, most_numbers=MOST_NUMBERS, words=kept)


def _prior_weights() -> dict[str, float]:
    """Words' weights before any query has been seen, by stem."""
    sorts = {"other": -LISTED / 2, "math": LISTED / 2, "listed": LISTED}
    return {_stem(word): weight for name, weight in sorts.items() for word in KNOWN[name]}


def _newton(x: Floats, y: Floats, prior: Floats) -> Floats:
    precision = np.full(x.shape[1], PRECISION)
    precision[-1] = 1e-3  # the bias is free
    w = prior.copy()
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (p - y) + precision * (w - prior)
        hessian = (x.T * (p * (1 - p))) @ x + np.diag(precision)
        w = w - np.linalg.solve(hessian, gradient)
    return w


def _stem(word: str) -> str:
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word[:-1] if plural else word


def _forms(seen: Sequence[str]) -> list[str]:
    """The words as they were seen, and the plurals of those."""
    plurals = {f"{word}s" for word in seen if _stem(f"{word}s") == word}
    return sorted({*seen, *plurals})
