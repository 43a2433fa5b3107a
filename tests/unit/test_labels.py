"""Labels as a trie, scored against the sum over every label's own tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import BackendError
from workers.engine.labels import Path, build_trie, score

VOCABULARY = 7
END = 6

LABELS = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), min_size=2, max_size=8,
    unique=True,
)  # fmt: skip


def logits(path: Path) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """What a model might say after a path."""
    rng = np.random.default_rng([len(path), *path])
    return rng.normal(size=VOCABULARY).astype(np.float32) * 2


def log_softmax(path: Path, token: int) -> float:
    row = logits(path).astype(np.float64)
    return float(row[token] - np.log(np.exp(row).sum()))


@given(labels=LABELS)
def test_a_label_is_as_likely_as_its_way_to_where_it_parts_from_all_others(
    labels: list[Path],
) -> None:
    trie = build_trie(tuple(labels), END)
    found = score(trie, {path: logits(path) for path in ((), *trie.paths)})
    expected = []
    for label in labels:
        others = [o for o in labels if o != label]
        full = (*label, END)
        depth = next(d for d in range(1, len(full) + 1)
                     if not any((*o, END)[:d] == full[:d] for o in others))  # fmt: skip
        expected.append(sum(log_softmax(full[:d], full[d]) for d in range(depth)))
    assert found.logs == pytest.approx(expected, abs=1e-4)
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.mass == pytest.approx(min(1, sum(map(math.exp, expected))), abs=1e-4)


@given(labels=LABELS)
def test_each_tip_has_its_own_way_and_all_paths_lie_on_one(labels: list[Path]) -> None:
    trie = build_trie(tuple(labels), END)
    for path in trie.paths:
        assert any(tip[: len(path)] == path for tip in trie.tips)
    for tip in trie.tips:
        assert not any(o != tip and o[: len(tip)] == tip for o in trie.paths)


def test_labels_that_part_at_once_need_no_row_of_their_own() -> None:
    assert build_trie(((1, 2), (2,), (3, 3)), END).paths == ()


def test_a_label_that_starts_another_is_ended() -> None:
    trie = build_trie(((1,), (1, 2)), END)
    assert trie.paths == ((1,),)


def test_two_labels_of_the_same_tokens_cannot_be_told_apart() -> None:
    with pytest.raises(BackendError, match="the same tokens"):
        build_trie(((1, END), (1,)), END)
