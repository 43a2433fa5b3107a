"""How the next token is drawn, and how JSON that was cut off is closed."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from config.catalog import Sampling
from workers.engine.drawing import Drawer, close_json, gumbel

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


Row = NDArray[np.float32]


def row(*probabilities: float) -> Row:
    return np.log(np.array(probabilities, dtype=np.float32))


def draws(sampling: Sampling, weights: Row, count: int = 4000, seed: int = 7) -> list[int]:
    drawer = Drawer(None, sampling, seed=seed, schema=None)
    found = []
    for _ in range(count):
        found.append(drawer.draw(weights))
        drawer.accept(found[-1])
    return found


SOME = row(0.5, 0.3, 0.15, 0.05)


@pytest.mark.parametrize(("temperature", "tokens"), [(0.5, 4), (1.0, 4), (1.0, 3000), (2.0, 3000)])
def test_tokens_come_as_often_as_they_are_likely(temperature: float, tokens: int) -> None:
    """Pearson's chi-square of what was drawn, in at most 20 groups of tokens."""
    logits = SOME if tokens == 4 else np.linspace(0, -9, tokens, dtype=np.float32)
    weights = np.exp(logits.astype(np.float64) / temperature)
    groups = np.arange(tokens) * 20 // max(tokens, 20)
    expected = np.bincount(groups, weights) / weights.sum() * 4000
    drawn = draws(Sampling(temperature=temperature, top_p=1.0), logits)
    found = np.bincount(groups[drawn], minlength=expected.size)
    assert chisquare(found, expected).pvalue > 0.001


def test_texts_of_different_seeds_are_independent() -> None:
    sampling = Sampling(temperature=1.0, top_p=1.0)
    pairs = Counter(tuple(draws(sampling, SOME, 2, seed)) for seed in range(4000))
    shares = np.outer(np.exp(SOME), np.exp(SOME))
    found = [pairs[i, j] for i in range(4) for j in range(4)]
    assert chisquare(found, shares.ravel() / shares.sum() * 4000).pvalue > 0.001


def test_top_p_keeps_what_is_needed_to_reach_it() -> None:
    assert set(draws(Sampling(temperature=1.0, top_p=0.7), SOME)) == {0, 1}
    assert set(draws(Sampling(temperature=1.0, top_p=0.81), SOME)) == {0, 1, 2}
    even = np.zeros(1000, dtype=np.float32)
    assert max(draws(Sampling(temperature=1.0, top_p=0.5), even)) == 499
    assert max(draws(Sampling(temperature=1.0, top_p=0.999), even)) == 998


def test_a_low_temperature_prefers_the_likeliest() -> None:
    cold = Counter(draws(Sampling(temperature=0.3, top_p=1.0), SOME))
    assert cold[0] > 3200
    assert set(draws(Sampling(temperature=0.0), SOME)) == {0}


@pytest.mark.parametrize("temperature", [1.5, 2.0])
def test_no_token_that_could_be_drawn_is_left_out(temperature: float) -> None:
    """Of a long tail with a third of the weight, a third is drawn, whatever its place."""
    tail = math.log(0.5 / 10_000) * temperature
    weights = np.array([0.0] + [tail] * 10_000, dtype=np.float32)
    drawn = draws(Sampling(temperature=temperature, top_p=1.0), weights, 3000)
    assert sum(token > 0 for token in drawn) / 3000 == pytest.approx(1 / 3, abs=0.03)
    assert max(drawn) > 9_900


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    sampling, weights = Sampling(temperature=1.0), row(*([0.01] * 100))
    assert draws(sampling, weights, 50, seed=3) == draws(sampling, weights, 50, seed=3)
    for other in (4, -3, 3 + 2**64 - 1):
        assert draws(sampling, weights, 50, seed=3) != draws(sampling, weights, 50, seed=other)


@pytest.mark.parametrize("top_p", [0.95, 1.0])
def test_rounding_changes_a_draw_only_where_two_are_nearly_tied(top_p: float) -> None:
    """As in other company: logits move a little, and swap their order where they are close."""
    rng = np.random.default_rng(5)
    sampling = Sampling(temperature=1.0, top_p=top_p)
    changed = 0
    for step in range(1000):
        weights = rng.normal(0, 2, 2000).astype(np.float32)
        moved = weights + rng.uniform(-0.01, 0.01, 2000).astype(np.float32)
        one, other = (
            Drawer(None, sampling, seed=step, schema=None).draw(logits)
            for logits in (weights, moved)
        )
        if one != other:
            changed += 1
            noise = gumbel(step, 0, np.array([one, other]))
            near = weights[[one, other]] + noise
            assert abs(near[0] - near[1]) < 0.02 or top_p < 1
    assert changed < 30


@given(value=JSON, ascii_only=st.booleans(), data=st.data())
def test_json_that_was_cut_off_is_closed_so_that_it_parses(
    value: object, ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    closed = close_json(text[: data.draw(st.integers(0, len(text)))])
    assert is_start(json.loads(closed), value)
    if isinstance(value, str | list | dict):
        assert close_json(text) == text


@given(text=st.text(alphabet='{}[]",:\\ u12d8tn-.', max_size=30))
def test_whatever_it_is_given_parses_afterwards(text: str) -> None:
    json.loads(close_json(text))


def is_start(found: object, whole: object) -> bool:
    """Whether all that was found is true of the whole; only what is missing may differ."""
    if found is None:
        return True
    if isinstance(found, str) and isinstance(whole, str):
        return whole.startswith(found)
    if isinstance(found, list) and isinstance(whole, list):
        last = len(found) - 1
        pairs = zip(found, whole[: len(found)], strict=True)
        return all(a == b or (i == last and is_start(a, b)) for i, (a, b) in enumerate(pairs))
    if isinstance(found, dict) and isinstance(whole, dict):
        return all(name in whole and is_start(found[name], whole[name]) for name in found)
    return type(found) is type(whole) and found == whole


def test_what_is_kept_of_a_cut_answer_is_its_beginning() -> None:
    assert close_json('{"name": "Ann", "tasks": ["write", "rea') == (
        '{"name": "Ann", "tasks": ["write", "rea"]}'
    )
    assert close_json('{"name": "Ann", "age": ') == '{"name": "Ann"}'


@pytest.mark.parametrize(
    ("cut", "closed"),
    [
        ('{"name":"Bo","count": 12', '{"name":"Bo"}'),
        ('{"score": 9', "{}"),
        ('{"score": 0.', "{}"),
        ('{"score": 1e', "{}"),
        ('{"sure": tru', "{}"),
        ('{"sure": true', "{}"),
        ('{"score": 9,', '{"score": 9}'),
        ('{"score": [1, 2', '{"score": [1]}'),
        ('{"score": [1, 2]', '{"score": [1, 2]}'),
        ("12", "null"),
        ('"a\\', '"a"'),
        ('"a\\u00e', '"a"'),
        ('"a\\\\', '"a\\\\"'),
        ('"a\\ud83d\\ude', '"a"'),
        ('"a\\ud83d', '"a"'),
        ('"a\\ud83d\\ude00', '"a\\ud83d\\ude00"'),
        ('{"a": 1, "b', '{"a": 1}'),
        ('{"a": 1, "b"', '{"a": 1}'),
        ("", "null"),
    ],
)
def test_what_may_lack_its_rest_is_dropped(cut: str, closed: str) -> None:
    assert close_json(cut) == closed


def test_the_work_of_closing_grows_with_the_length_alone() -> None:
    """Each character is looked at a few times, however long the key is that was cut."""
    cut = '{"a": [' + "[" * 200 + '"' + "x" * 1_000_000
    assert close_json(cut) == cut + '"' + "]" * 201 + "}"
    assert close_json('{"a": "b", "' + "k" * 1_000_000) == '{"a": "b"}'
