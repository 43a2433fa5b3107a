"""Probabilities read off confidence scores."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.isotonic import Tempered, error_of, fit_curve, fit_isotonic, fit_tempered

SCORES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None)  # the first example imports SciPy
@given(SCORES, st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_it_rises_and_stays_a_probability(rows, asked):
    curve = fit_isotonic([s for s, _ in rows], [hit for _, hit in rows])
    found = [curve.apply(score) for score in sorted(asked)]
    assert all(0 <= p <= 1 for p in found)
    assert all(a <= b + 1e-12 for a, b in pairwise(found))


def test_violators_are_pooled_and_drawn_at_their_middle():
    curve = fit_isotonic([0.1, 0.2, 0.4, 0.8], [False, True, False, True])
    assert np.array(curve.knots) == pytest.approx(np.array([(0.1, 0), (0.3, 0.5), (0.8, 1)]))
    assert curve.apply(0.2) == pytest.approx(0.25)
    assert (curve.apply(0.0), curve.apply(1.0)) == (0.0, 1.0)


def test_a_model_that_is_too_sure_is_cooled():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.5, 1, 2000)
    hits = (rng.random(2000) < p).tolist()
    stated = (p**3 / (p**3 + (1 - p) ** 3)).tolist()
    found = fit_tempered(stated, hits)
    assert found.temperature == pytest.approx(3, rel=0.15)
    assert error_of(found, stated, hits) < error_of(Tempered(1.0), stated, hits) / 3


def test_scores_that_no_temperature_mends_get_a_curve():
    rng = np.random.default_rng(2)
    stated = rng.uniform(0, 1, 1000).tolist()
    hits = [bool(rng.random() < 0.8 + 0.2 * (s > 0.5)) for s in stated]
    assert error_of(fit_curve(stated, hits), stated, hits) < 0.05


def test_too_few_rows_leave_scores_as_they_are():
    assert fit_curve([0.3, 0.9], [True, False]).apply(0.3) == pytest.approx(0.3)
