"""Scores the labels of a choice in one forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from config.errors import BackendError
from workers.backends.llama_context import LlamaContext, Logits, Row


@dataclass(frozen=True)
class LabelScores:
    """Probabilities over the closed set, the set's share of all, and each label's token count."""

    probabilities: tuple[float, ...]
    mass: float
    tokens: tuple[int, ...]


@dataclass
class Node:
    """A place in the trie of the labels' tokens; ``path`` leads to it from the prompt's end."""

    path: tuple[int, ...]
    children: dict[int, Node] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)

    def branches(self) -> list[Node]:
        """This node and those below it at which labels part."""
        found = [self] if self.children else []
        for child in self.children.values():
            found += child.branches()
        return found


def build_trie(labels: Sequence[Sequence[int]], terminator: int) -> Node:
    """A trie in which every label has a leaf, no deeper than it takes to tell it apart.

    A label that is the start of another one is ended by ``terminator``.
    """
    root = Node(())
    _grow(root, [(i, tuple(tokens)) for i, tokens in enumerate(labels)], terminator)
    return root


def _grow(node: Node, labels: list[tuple[int, tuple[int, ...]]], terminator: int) -> None:
    node.labels = [index for index, _ in labels]
    depth = len(node.path)
    if len(labels) == 1 and depth > 0:
        return
    groups: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for index, tokens in labels:
        token = tokens[depth] if depth < len(tokens) else terminator
        groups.setdefault(token, []).append((index, tokens))
    for token, members in groups.items():
        child = Node((*node.path, token))
        node.children[token] = child
        if token == terminator and len(members) > 1:
            raise BackendError("two labels have the same tokens", retryable=False)
        _grow(child, members, terminator)


def score_labels(
    context: LlamaContext,
    labels: Sequence[str],
    own: Sequence[int],
    offset: int,
    source: int | None,
    work: int,
    free: range,
) -> LabelScores:
    """Probability of each label as the continuation of the prompt.

    ``own`` tokens follow ``offset`` tokens that sequence ``source`` holds and ``work`` shares.
    A label's probability is that of its tokens up to where it parts from all others, the product
    along the trie; ``free`` are sequences for the trie's branches.
    """
    tokens = [context.tokens(" " + label) for label in labels]
    trie = build_trie(tokens, context.end_of_turn)
    inner = trie.branches()
    end = offset + len(own)
    found: dict[tuple[int, ...], Logits] = {}
    ends = [n for n in inner if n.path and not any(c.children for c in n.children.values())]
    rows = [Row(t, offset + i, (work,), i == len(own) - 1) for i, t in enumerate(own)]
    first, rest = ends[: len(free)], ends[len(free) :]
    _decode_branches(context, rows, first, source, free, end, found)
    while rest:
        part, rest = rest[: len(free)], rest[len(free) :]
        _decode_branches(context, [], part, work, free, end, found)
    return _normalise(trie, found, len(labels), [len(t) for t in tokens])


def _decode_branches(
    context: LlamaContext,
    own: list[Row],
    ends: list[Node],
    source: int | None,
    free: range,
    end: int,
    found: dict[tuple[int, ...], Logits],
) -> None:
    """One decode of the prompt's own rows and of the paths to the branching places."""
    sequences = list(free[: len(ends)])
    for sequence in sequences:
        if source is not None:
            context.share(source, sequence)
    members: dict[tuple[int, ...], list[int]] = {}
    for node, sequence in zip(ends, sequences, strict=True):
        for depth in range(1, len(node.path) + 1):
            members.setdefault(node.path[:depth], []).append(sequence)
    rows = [Row(r.token, r.position, (*r.sequences, *sequences), r.wanted) for r in own]
    paths = sorted(members, key=len)
    rows += [Row(p[-1], end + len(p) - 1, tuple(members[p]), True) for p in paths]
    try:
        logits = context.decode(rows)
    finally:
        for sequence in sequences:
            context.forget(sequence)
    found.update(zip([()] * bool(own) + paths, logits, strict=True))


def _normalise(
    trie: Node, found: dict[tuple[int, ...], Logits], count: int, lengths: list[int]
) -> LabelScores:
    scores = [-math.inf] * count
    stack: list[tuple[Node, float]] = [(trie, 0.0)]
    while stack:
        node, score = stack.pop()
        if not node.children:
            scores[node.labels[0]] = score
            continue
        logits = found[node.path].astype(np.float64)
        top = logits.max()
        total = top + math.log(np.exp(logits - top).sum())
        stack += [(c, score + float(logits[t]) - total) for t, c in node.children.items()]
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    whole = sum(weights)
    mass = min(1.0, whole * math.exp(top))
    return LabelScores(tuple(w / whole for w in weights), mass, tuple(lengths))
