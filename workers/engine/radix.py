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
WORTH_A_PASS = 32
"""Tokens that neighbours must share beyond their hints to be computed first, in a pass of their
own: a small pass costs about as much as so many rows in a large one."""


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

    def way(self) -> Iterator[Node]:
        """It and all above it."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def first_unready(self) -> Node | None:
        """The first on the way to it that is not computed yet, itself included."""
        found = None
        for node in self.way():
            if node.ready:
                break
            found = node
        return found

    def remove(self) -> None:
        """Take a leaf out of its tree; its holder is the caller's again."""
        if self.parent is not None:
            del self.parent.children[self.tokens[0]]


@dataclass(frozen=True)
class Place:
    """Where a request would hang, found without changing anything.

    ``depth`` of its tokens are on the way; those after ``node.end`` within the edge of ``child``,
    which is split there. ``grows`` says whether a node of its own follows.
    """

    node: Node
    depth: int
    child: Node | None
    grows: bool


class RadixTree:
    """The prefixes of one adapter.

    ``take`` gives a free sequence or ``None``; it may remove idle nodes of this tree for that.
    ``share(source, target, end)`` has sequence ``target`` see the first ``end`` tokens of
    ``source``: it is told of a split at once, while the lower node's holder is surely there.
    """

    def __init__(
        self,
        root: int,
        take: Callable[[], int | None],
        share: Callable[[int, int, int], None] = lambda _source, _target, _end: None,
    ) -> None:
        self.root = Node((), 0, root, None)
        self._take = take
        self._share = share
        self._clock = 0

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
        found = self.find(tokens, boundary)
        node = found.node
        if found.child is not None:
            node = self._split(found.child, found.depth - node.end) or node
        if found.grows and node.end == found.depth:
            node = self._grow(node, tuple(tokens[found.depth : boundary])) or node
        self.touch(node)
        return node

    def find(self, tokens: Sequence[int], boundary: int) -> Place:
        """What :meth:`place` would do, given enough sequences."""
        boundary = min(boundary, len(tokens) - 1)
        node, depth = self.match(tokens[: len(tokens) - 1])
        grows = boundary - depth >= LEAST_SHARED
        # Templates begin with the same few tokens of markup: parting there, too, needs a split.
        splits = depth > node.end and (depth - node.end >= LEAST_SHARED or grows)
        if not splits:
            return Place(node, node.end, None, grows and depth == node.end)
        return Place(node, depth, node.children[tokens[node.end]], grows)

    def touch(self, node: Node) -> None:
        """Note that a node is relied on."""
        self._clock += 1
        for above in node.way():
            above.used = self._clock

    def idle(self) -> Node | None:
        """The leaf that nobody relies on and that was used least recently."""
        leaves = (n for n in self.nodes() if not n.children and not n.users and n is not self.root)
        return min(leaves, key=lambda n: n.used, default=None)

    def spare(self) -> list[Node]:
        """All nodes that could leave, one after another: nobody relies on them or what is below."""
        needed, found = {self.root}, []
        for node in reversed(list(self.nodes())):
            if not node.users and node not in needed:
                found.append(node)
            elif node.parent is not None:
                needed.add(node.parent)
        return found

    def nodes(self) -> Iterator[Node]:
        """All nodes, parents before their children."""
        return self.nodes_from(self.root)

    @staticmethod
    def nodes_from(first: Node) -> Iterator[Node]:
        """A node and all below it, parents before their children."""
        stack = [first]
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()

    def _take_beside(self, node: Node) -> int | None:
        """A sequence, got without removing ``node``, which may well be the next to leave."""
        node.users += 1
        try:
            return self._take()
        finally:
            node.users -= 1

    def _grow(self, parent: Node, tokens: tuple[int, ...]) -> Node | None:
        holder = self._take_beside(parent)
        if holder is None:
            return None
        node = Node(tokens, parent.end, holder, parent)
        parent.children[tokens[0]] = node
        return node

    def _split(self, lower: Node, at: int) -> Node | None:
        """Cut a node after ``at`` tokens; the new node above has what comes before."""
        holder = self._take_beside(lower)
        if holder is None or lower.parent is None:
            return None
        upper = Node(lower.tokens[:at], lower.start, holder, lower.parent, done=min(at, lower.done))
        lower.parent.children[lower.tokens[0]] = upper
        upper.children = {lower.tokens[at]: lower}
        upper.used = lower.used
        self._share(lower.holder, holder, upper.start + upper.done)
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
        for one in (before, after):
            if shared - found[one] >= WORTH_A_PASS:
                found[one] = shared
    return found


def _common(first: Sequence[int], second: Sequence[int], offset: int) -> int:
    """How long ``first`` and ``second[offset:]`` go together."""
    count = 0
    for one, other in zip(first, second[offset:], strict=False):
        if one != other:
            break
        count += 1
    return count
