"""Labels of a choice as a trie of tokens, each scored to its last one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workers.engine.context import Logits
from workers.label_paths import Path as Path
from workers.label_paths import branches, whole_paths


@dataclass(frozen=True)
class LabelScores:
    """Log-probabilities of the labels under the whole vocabulary, and probabilities over the set.

    ``mass`` is the set's share of all; ``probabilities`` sum to 1.
    """

    logs: tuple[float, ...]
    probabilities: tuple[float, ...]
    mass: float


@dataclass(frozen=True)
class Trie:
    """What has to be computed to know how likely labels are.

    ``ways`` are the labels' tokens. ``paths`` are the places on them after the prompt, shorter ones
    first; the prompt's own end, the empty path, is not among them. ``tips`` are those of them that
    lie on no other's way: each needs a sequence.
    """

    ways: tuple[Path, ...]
    paths: tuple[Path, ...]
    tips: tuple[Path, ...]


@lru_cache(maxsize=1024)
def build_trie(labels: tuple[Path, ...], terminator: int) -> Trie:
    """A trie of all tokens of all labels.

    A label that is the start of another one is ended by ``terminator``.

    Raises:
        BackendError: two labels have the same tokens.
    """
    ways = whole_paths(labels, terminator)
    paths = tuple(place for place in branches(ways) if place)
    parents = {path[:-1] for path in paths}
    return Trie(ways, paths, tuple(path for path in paths if path not in parents))


def score(trie: Trie, logits: Mapping[Path, Logits]) -> LabelScores:
    """Each label's probability: the product of its tokens', each given all before it.

    ``logits`` has a row of the vocabulary's size for the empty path and each of ``trie.paths``.
    """
    totals = {path: _log_sum_exp(row) for path, row in logits.items()}

    def log(way: Path, depth: int) -> float:
        place = way[:depth]
        return float(logits[place][way[depth]]) - totals[place]

    logs = [math.fsum(log(way, depth) for depth in range(len(way))) for way in trie.ways]
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    whole = sum(weights)
    mass = min(1.0, whole * math.exp(top))
    return LabelScores(tuple(logs), tuple(w / whole for w in weights), mass)


def _log_sum_exp(row: Logits) -> float:
    top = float(row.max())
    return top + math.log(float(np.exp(row - top).sum(dtype=np.float64)))
