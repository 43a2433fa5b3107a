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
def test_a_label_is_as_likely_as_all_its_tokens_one_after_another(labels: list[Path]) -> None:
    trie = build_trie(tuple(labels), END)
    found = score(trie, {path: logits(path) for path in ((), *trie.paths)})
    expected = []
    for label in labels:
        begins_another = any(o != label and o[: len(label)] == label for o in labels)
        whole = (*label, END) if begins_another else label
        expected.append(sum(log_softmax(whole[:d], whole[d]) for d in range(len(whole))))
    assert found.logs == pytest.approx(expected, abs=1e-4)
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.mass == pytest.approx(sum(map(math.exp, expected)), rel=1e-4)
    assert found.mass <= 1


@given(labels=LABELS)
def test_each_tip_has_its_own_way_and_all_paths_lie_on_one(labels: list[Path]) -> None:
    trie = build_trie(tuple(labels), END)
    assert set(trie.tips) <= set(trie.paths)
    for path in trie.paths:
        assert any(tip[: len(path)] == path for tip in trie.tips)
    for tip in trie.tips:
        assert not any(o != tip and o[: len(tip)] == tip for o in trie.paths)


def test_every_token_before_a_labels_last_has_a_row() -> None:
    trie = build_trie(((1, 2), (2,), (3, 3, 4)), END)
    assert trie.paths == ((1,), (3,), (3, 3))
    assert trie.tips == ((1,), (3, 3))
    assert build_trie(((1,), (2,)), END).paths == ()


def test_a_label_that_starts_another_is_ended() -> None:
    trie = build_trie(((1,), (1, 2)), END)
    assert trie.paths == ((1,),)


def test_two_labels_of_the_same_tokens_cannot_be_told_apart() -> None:
    with pytest.raises(BackendError, match="the same tokens"):
        build_trie(((1, END), (1,)), END)
