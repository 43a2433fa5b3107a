"""The tree of prefixes: matches inside an edge, splits, nodes in flight, what may leave first."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from workers.engine.radix import LEAST_SHARED, Node, RadixTree, boundaries

LONG = tuple(range(100, 140))


class Sequences:
    """Hands out sequence numbers until there are none."""

    def __init__(self, count: int = 1000) -> None:
        self.left = list(range(count, 0, -1))

    def __call__(self) -> int | None:
        return self.left.pop() if self.left else None


def tree(count: int = 1000, told: list[tuple[int, int, int]] | None = None) -> RadixTree:
    """A tree; ``told`` gets what the context is told."""
    splits = [] if told is None else told
    return RadixTree(0, Sequences(count), lambda *split: splits.append(split))


def way(node: Node) -> tuple[int, ...]:
    """All tokens from the root to a node's end."""
    return way(node.parent) + node.tokens if node.parent is not None else ()


def test_a_cold_tick_hangs_on_one_node_that_is_in_flight() -> None:
    prompts = [(*LONG, i, 1, 2) for i in range(50)]
    marks = boundaries(prompts, [0] * 50)
    found = tree()
    nodes = {found.place(p, m) for p, m in zip(prompts, marks, strict=True)}
    assert [(n.tokens, n.ready) for n in nodes] == [(LONG, False)]


def test_a_match_inside_an_edge_splits_it_and_the_context_is_told() -> None:
    told: list[tuple[int, int, int]] = []
    found = tree(told=told)
    first = found.place((*LONG, 1), 40)
    first.done = 40
    second = found.place((*LONG[:25], 7, 8), 0)
    assert way(second) == LONG[:25]
    assert second.ready
    assert (first.start, first.tokens, first.done) == (25, LONG[25:], 15)
    assert first.parent is second
    assert told == [(first.holder, second.holder, 25)]


def test_a_node_split_in_flight_keeps_what_is_computed() -> None:
    told: list[tuple[int, int, int]] = []
    found = tree(told=told)
    first = found.place((*LONG, 1), 40)
    first.done = 10
    upper = found.place((*LONG[:25], 7, 8), 0)
    assert (upper.done, first.done, told[0][2]) == (10, 0, 10)


def test_prompts_that_part_early_share_nothing() -> None:
    told: list[tuple[int, int, int]] = []
    found = tree(told=told)
    found.place((*LONG, 1), 40)
    other = found.place((*LONG[: LEAST_SHARED - 1], 9, 8, 7), 0)
    assert other is found.root
    assert not told


def test_templates_that_begin_with_the_same_few_tokens_each_have_a_node() -> None:
    found = tree()
    found.place((*LONG, 1), 40)
    other = (*LONG[:3], *range(200, 240))
    nodes = {found.place((*other, i, 1), 43) for i in range(50)}
    assert [(way(n), n.start) for n in nodes] == [(other, 3)]
    assert way(found.place((*LONG, 2), 40)) == LONG


def test_a_prompt_keeps_a_token_for_itself() -> None:
    found = tree()
    node = found.place(LONG, 40)
    assert node.end == 39


def test_without_sequences_a_prompt_is_computed_as_a_whole() -> None:
    found = tree(count=0)
    assert found.place((*LONG, 1), 40) is found.root


def test_the_leaf_that_was_used_least_recently_leaves_first() -> None:
    found = tree()
    nodes = [found.place((*(t + n for t in LONG), 1), 40) for n in (0, 1000, 2000)]
    nodes[1].users = 1
    found.touch(nodes[0])
    idle = found.idle()
    assert idle is nodes[2]
    assert idle is not None
    idle.remove()
    assert found.idle() is nodes[0]
    child = found.place((*LONG, *range(500, 520), 1), 60)
    assert child.parent is nodes[0]
    child.remove()
    assert found.idle() is nodes[0]


def test_identical_prompts_share_no_more_than_their_hint() -> None:
    assert sorted(boundaries([LONG, LONG, (*LONG[:38], 1)], [5, 5, 5])) == [5, 38, 38]


def test_a_few_tokens_more_than_the_hint_are_no_pass_of_their_own() -> None:
    assert boundaries([LONG, (*LONG[:20], 1)], [5, 5]) == [5, 5]


PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=25)


@given(prompts=PROMPTS, hints=st.lists(st.integers(0, 40), min_size=25, max_size=25))
def test_whatever_comes_the_tree_is_one(prompts: list[list[int]], hints: Sequence[int]) -> None:
    found = tree(count=12)
    marks = boundaries(prompts, list(hints[: len(prompts)]))
    for prompt, mark in zip(prompts, marks, strict=True):
        node = found.place(prompt, mark)
        assert tuple(prompt[: node.end]) == way(node)
        assert node.end < len(prompt)
    holders = []
    for node in found.nodes():
        holders.append(node.holder)
        for token, child in node.children.items():
            assert child.tokens[0] == token
            assert child.start == node.end
            assert child.parent is node
    assert len(set(holders)) == len(holders)
