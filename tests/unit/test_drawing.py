"""How the next token is drawn, and how JSON that was cut off is closed."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.catalog import Sampling
from workers.engine.drawing import Drawer, close_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def row(*probabilities: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.log(np.array(probabilities, dtype=np.float32))


def draws(sampling: Sampling, count: int = 4000) -> Counter[int]:
    drawer = Drawer(None, sampling, seed=7, schema=None)
    weights = row(0.5, 0.3, 0.15, 0.05)
    return Counter(drawer.draw(weights) for _ in range(count))


def test_tokens_come_as_often_as_they_are_likely() -> None:
    found = draws(Sampling(temperature=1.0, top_p=1.0))
    shares = [found[i] / 4000 for i in range(4)]
    assert shares == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_top_p_keeps_what_is_needed_to_reach_it() -> None:
    assert set(draws(Sampling(temperature=1.0, top_p=0.7))) == {0, 1}
    assert set(draws(Sampling(temperature=1.0, top_p=0.81))) == {0, 1, 2}


def test_a_low_temperature_prefers_the_likeliest() -> None:
    cold = draws(Sampling(temperature=0.3, top_p=1.0))
    assert cold[0] > 3200
    assert set(draws(Sampling(temperature=0.0))) == {0}


def test_the_same_seed_draws_the_same() -> None:
    sampling = Sampling(temperature=1.0)
    one, other = (Drawer(None, sampling, seed=3, schema=None) for _ in range(2))
    weights = row(*([0.01] * 100))
    assert [one.draw(weights) for _ in range(50)] == [other.draw(weights) for _ in range(50)]


@given(value=JSON, data=st.data())
def test_json_that_was_cut_off_is_closed_so_that_it_parses(
    value: object, data: st.DataObject
) -> None:
    text = json.dumps(value)
    cut = data.draw(st.integers(0, len(text)))
    closed = close_json(text[:cut])
    json.loads(closed)
    assert close_json(text) == text


def test_what_is_kept_of_a_cut_answer_is_its_beginning() -> None:
    assert close_json('{"name": "Ann", "tasks": ["write", "rea') == (
        '{"name": "Ann", "tasks": ["write", "rea"]}'
    )
    assert close_json('{"name": "Ann", "age": ') == '{"name": "Ann"}'
