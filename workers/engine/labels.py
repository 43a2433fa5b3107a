"""Labels of a choice as a trie of tokens, scored from the logits at its branchings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from config.errors import BackendError
from workers.engine.context import Logits

Path = tuple[int, ...]


@dataclass(frozen=True)
class LabelScores:
    """Log-probabilities of the labels under the whole vocabulary, and probabilities over the set.

    ``mass`` is the set's share of all; ``probabilities`` sum to 1.
    """

    logs: tuple[float, ...]
    probabilities: tuple[float, ...]
    mass: float


@dataclass
class _Node:
    path: Path
    children: dict[int, _Node] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)

    def branches(self) -> list[_Node]:
        """This node and those below it after which labels part."""
        found = [self] if self.children else []
        for child in self.children.values():
            found += child.branches()
        return found


@dataclass(frozen=True)
class Trie:
    """What has to be computed to tell labels apart.

    ``paths`` are the places after the prompt whose next token matters, shorter ones first; the
    prompt's own end, the empty path, is not among them. ``tips`` are those of them that lie on no
    other's way: each needs a sequence.
    """

    root: _Node
    paths: tuple[Path, ...]
    tips: tuple[Path, ...]
    lengths: tuple[int, ...]
    """Tokens of each label."""


@lru_cache(maxsize=1024)
def build_trie(labels: tuple[Path, ...], terminator: int) -> Trie:
    """A trie in which every label has a leaf, no deeper than it takes to tell it apart.

    A label that is the start of another one is ended by ``terminator``.

    Raises:
        BackendError: two labels have the same tokens.
    """
    root = _Node(())
    _grow(root, list(enumerate(labels)), terminator)
    inner = [n.path for n in root.branches() if n.path]
    paths = sorted(inner, key=len)
    tips = [p for p in paths if not any(q != p and q[: len(p)] == p for q in paths)]
    return Trie(root, tuple(paths), tuple(tips), tuple(len(label) for label in labels))


def score(trie: Trie, logits: Mapping[Path, Logits]) -> LabelScores:
    """Each label's probability: the product along its way, up to where it parts from all others.

    ``logits`` has a row of the vocabulary's size for the empty path and each of ``trie.paths``.
    """
    totals = {path: _log_sum_exp(row) for path, row in logits.items()}
    logs = [-math.inf] * len(trie.lengths)
    stack: list[tuple[_Node, float]] = [(trie.root, 0.0)]
    while stack:
        node, so_far = stack.pop()
        if not node.children:
            logs[node.labels[0]] = so_far
            continue
        row, total = logits[node.path], totals[node.path]
        stack += [(c, so_far + float(row[t]) - total) for t, c in node.children.items()]
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    whole = sum(weights)
    mass = min(1.0, whole * math.exp(top))
    return LabelScores(tuple(logs), tuple(w / whole for w in weights), mass)


def _grow(node: _Node, labels: Sequence[tuple[int, Path]], terminator: int) -> None:
    node.labels = [index for index, _ in labels]
    depth = len(node.path)
    if len(labels) == 1 and depth > 0:
        return
    groups: dict[int, list[tuple[int, Path]]] = {}
    for index, tokens in labels:
        token = tokens[depth] if depth < len(tokens) else terminator
        groups.setdefault(token, []).append((index, tokens))
    for token, members in groups.items():
        child = _Node((*node.path, token))
        node.children[token] = child
        if token == terminator and len(members) > 1:
            raise BackendError("two labels have the same tokens", retryable=False)
        _grow(child, members, terminator)


def _log_sum_exp(row: Logits) -> float:
    top = float(row.max())
    return top + math.log(float(np.exp(row - top).sum(dtype=np.float64)))
