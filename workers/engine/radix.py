"""A radix tree over tokens: which prefixes are in the context, or about to be.

Each node is a run of tokens after its parent's. Its ``holder`` is a sequence of the context that
holds everything from the root to the node's end, so a node lives as long as its holder, whatever
becomes of its parents. A node whose tokens are not all computed yet is in flight: requests that
arrive meanwhile hang on it instead of computing the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

LEAST_SHARED = 8
"""Tokens below which a prefix is not worth a sequence of its own."""


@dataclass(eq=False)
class Node:
    """A run of tokens, from position ``start`` on. ``done`` of them are computed."""

    tokens: tuple[int, ...]
    start: int
    holder: int
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)
    done: int = 0
    users: int = 0
    """Requests that rely on it."""
    used: int = 0
    """When it was relied on last, on a clock that counts uses."""

    @property
    def end(self) -> int:
        """The position after its last token."""
        return self.start + len(self.tokens)

    @property
    def ready(self) -> bool:
        """Whether it and all before it is computed."""
        return self.done == len(self.tokens)


@dataclass(frozen=True)
class Split:
    """An edge was split: sequence ``upper`` has to see the first ``end`` tokens of ``lower``."""

    lower: int
    upper: int
    end: int


class RadixTree:
    """The prefixes of one adapter. ``take`` gives a free sequence or ``None``."""

    def __init__(self, root: int, take: Callable[[], int | None]) -> None:
        self.root = Node((), 0, root, None)
        self._take = take
        self._clock = 0
        self.splits: list[Split] = []
        """What the context has still to be told; the owner empties it."""

    def match(self, tokens: Sequence[int]) -> tuple[Node, int]:
        """The deepest node on the way of ``tokens``, and how many tokens are on the way.

        More than ``node.end`` means that the way ends inside the edge of one of its children.
        """
        node, depth = self.root, 0
        while depth < len(tokens):
            child = node.children.get(tokens[depth])
            if child is None:
                break
            common = _common(child.tokens, tokens, depth)
            depth += common
            if common < len(child.tokens):
                break
            node = child
        return node, depth

    def place(self, tokens: Sequence[int], boundary: int) -> Node:
        """The node at which a request for ``tokens`` hangs, made if it is worth it.

        ``boundary`` is how many tokens from the start others will probably share. At least one
        token is left to the request, whose logits it needs.
        """
        boundary = min(boundary, len(tokens) - 1)
        node, depth = self.match(tokens[: len(tokens) - 1])
        if depth - node.end >= LEAST_SHARED:
            node = self._split(node.children[tokens[node.end]], depth - node.end) or node
        elif depth > node.end:
            depth = node.end
        if node.end == depth and boundary - depth >= LEAST_SHARED:
            node = self._grow(node, tuple(tokens[depth:boundary])) or node
        self.touch(node)
        return node

    def touch(self, node: Node) -> None:
        """Note that a node is relied on."""
        self._clock += 1
        above: Node | None = node
        while above is not None:
            above.used = self._clock
            above = above.parent

    def idle(self) -> Node | None:
        """The leaf that nobody relies on and that was used least recently."""
        leaves = (n for n in self.nodes() if not n.children and not n.users and n is not self.root)
        return min(leaves, key=lambda n: n.used, default=None)

    def remove(self, node: Node) -> None:
        """Take a leaf out; its holder is the caller's again."""
        if node.parent is not None:
            del node.parent.children[node.tokens[0]]

    def nodes(self) -> Iterator[Node]:
        """All nodes, parents before their children."""
        stack = [self.root]
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()

    def _grow(self, parent: Node, tokens: tuple[int, ...]) -> Node | None:
        if tokens[0] in parent.children:
            return None  # it parts from that child too early to be worth a split
        holder = self._take()
        if holder is None:
            return None
        node = Node(tokens, parent.end, holder, parent)
        parent.children[tokens[0]] = node
        return node

    def _split(self, lower: Node, at: int) -> Node | None:
        """Cut a node after ``at`` tokens; the new node above has what comes before."""
        holder = self._take()
        if holder is None or lower.parent is None:
            return None
        upper = Node(lower.tokens[:at], lower.start, holder, lower.parent, done=min(at, lower.done))
        lower.parent.children[lower.tokens[0]] = upper
        upper.children = {lower.tokens[at]: lower}
        upper.used = lower.used
        self.splits.append(Split(lower.holder, holder, upper.start + upper.done))
        lower.tokens, lower.start = lower.tokens[at:], lower.start + at
        lower.done = max(0, lower.done - at)
        lower.parent = upper
        return upper


def boundaries(prompts: Sequence[Sequence[int]], hints: Sequence[int]) -> list[int]:
    """How many tokens from the start each prompt shares: with a neighbour here, or by its hint."""
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    found = list(hints)
    for before, after in pairwise(order):
        if prompts[before] == prompts[after]:
            continue  # the same question: it is computed once
        shared = _common(prompts[before], prompts[after], 0)
        found[before], found[after] = max(found[before], shared), max(found[after], shared)
    return found


def _common(first: Sequence[int], second: Sequence[int], offset: int) -> int:
    """How long ``first`` and ``second[offset:]`` go together."""
    count = 0
    for one, other in zip(first, second[offset:], strict=False):
        if one != other:
            break
        count += 1
    return count
