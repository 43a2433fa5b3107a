"""Calibration of label probabilities: what must hold whatever the numbers are."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.confidence import (
    COLDEST,
    HOTTEST,
    Correction,
    Example,
    RunningMean,
    batch_bias,
    calibrated,
    contextual_bias,
    ece,
    fit,
    fit_temperature,
    log_probabilities,
    loss,
)

LABELS = ("a", "b", "c")
NONE = (0.0, 0.0, 0.0)
NATS = st.floats(-8, 8)
ROWS = st.tuples(NATS, NATS, NATS)
TEMPERATURES = st.floats(0.1, 10)
PROBABILITIES = ROWS.map(lambda z: calibrated(z, NONE, 0, 1))
EXAMPLES = st.lists(st.builds(Example, ROWS, st.integers(0, 2)), min_size=1, max_size=20)


@given(ROWS, ROWS, st.floats(0, 1), TEMPERATURES)
def test_what_comes_out_are_probabilities(
    z: tuple[float, ...], bias: tuple[float, ...], strength: float, temperature: float
) -> None:
    found = calibrated(z, bias, strength, temperature)
    assert math.fsum(found) == pytest.approx(1)
    assert all(0 <= p <= 1 for p in found)


@given(PROBABILITIES)
def test_no_bias_and_temperature_1_change_nothing(row: tuple[float, ...]) -> None:
    assert Correction().apply(LABELS, row) == pytest.approx(row, abs=1e-5)


@given(ROWS, ROWS, st.floats(0, 1), TEMPERATURES, st.floats(-50, 50))
def test_only_differences_between_labels_count(
    z: tuple[float, ...], bias: tuple[float, ...], strength: float, temperature: float, more: float
) -> None:
    shifted = calibrated([x + more for x in z], [b - more for b in bias], strength, temperature)
    assert shifted == pytest.approx(calibrated(z, bias, strength, temperature), abs=1e-9)


@given(ROWS, ROWS, TEMPERATURES, TEMPERATURES)
def test_temperature_keeps_the_order_and_heat_flattens(
    z: tuple[float, ...], bias: tuple[float, ...], one: float, other: float
) -> None:
    cold = calibrated(z, bias, 1, min(one, other))
    hot = calibrated(z, bias, 1, max(one, other))
    assert max(hot) <= max(cold) + 1e-12
    for i in range(3):
        for j in range(3):
            if hot[i] > hot[j] + 1e-12:
                assert cold[i] >= cold[j]


@given(PROBABILITIES)
def test_an_input_without_content_favours_no_label_afterwards(row: tuple[float, ...]) -> None:
    bias = contextual_bias([row, row, row])
    assert math.fsum(bias) == pytest.approx(0, abs=1e-9)
    found = calibrated(log_probabilities(row), bias, 1, 1)
    assert found == pytest.approx((1 / 3,) * 3)


def test_content_free_inputs_are_averaged_as_probabilities() -> None:
    bias = contextual_bias([(0.9, 0.1), (0.5, 0.5), (0.4, 0.6)])
    assert bias[0] - bias[1] == pytest.approx(math.log(0.6 / 0.4))


@given(st.lists(PROBABILITIES, min_size=1, max_size=10))
def test_after_batch_calibration_the_mean_log_probability_of_all_labels_is_equal(
    rows: list[tuple[float, ...]],
) -> None:
    bias = batch_bias(rows)
    columns = zip(*(log_probabilities(row) for row in rows), strict=True)
    means = [math.fsum(column) / len(rows) - b for column, b in zip(columns, bias, strict=True)]
    assert means == pytest.approx([means[0]] * 3, abs=1e-9)


@given(st.lists(ROWS, min_size=1, max_size=20))
def test_a_running_mean_is_the_mean(rows: list[tuple[float, ...]]) -> None:
    mean = RunningMean()
    for row in rows:
        mean.add(row)
    whole = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
    assert mean.values == pytest.approx(whole, abs=1e-9)


@given(EXAMPLES, ROWS)
def test_no_other_temperature_is_better(examples: list[Example], bias: tuple[float, ...]) -> None:
    found = fit_temperature(examples, bias, 1)
    assert COLDEST <= found <= HOTTEST
    least = loss(examples, bias, 1, found)
    for other in (COLDEST, 0.3, 1.0, 2.0, 7.0, HOTTEST):
        assert least <= loss(examples, bias, 1, other) + 1e-6
    assert found == fit_temperature(examples, bias, 1)


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(truth: float) -> None:
    dice = random.Random(1)
    examples = []
    for _ in range(5000):
        z = tuple(dice.gauss(0, 3) for _ in LABELS)
        [right] = dice.choices(range(3), calibrated(z, NONE, 0, truth))
        examples.append(Example(z, right))
    assert fit_temperature(examples, NONE, 0) == pytest.approx(truth, rel=0.1)


@given(EXAMPLES, ROWS)
def test_a_fit_is_no_worse_than_doing_nothing(
    examples: list[Example], bias: tuple[float, ...]
) -> None:
    assert fit(examples, bias).loss <= loss(examples, bias, 0, 1) + 1e-6


def test_a_bias_that_is_none_is_not_subtracted() -> None:
    found = fit([Example((0.0, -1.0), 0), Example((-1.0, 0.0), 1)], (0.0, 0.0))
    assert found.strength == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40), st.randoms())
def test_ece_is_a_share_and_knows_no_order(
    answers: list[tuple[float, bool]], dice: random.Random
) -> None:
    found = ece([c for c, _ in answers], [h for _, h in answers])
    assert 0 <= found <= 1
    dice.shuffle(answers)
    assert ece([c for c, _ in answers], [h for _, h in answers]) == pytest.approx(found)


def test_ece_by_hand() -> None:
    # Two bins: .9 and .9 with one hit (gap .8 of two), .3 without a hit (gap .3 of one).
    assert ece([0.9, 0.9, 0.3], [True, False, False]) == pytest.approx((0.8 + 0.3) / 3)
    assert ece([1.0, 1.0, 0.0], [True, True, False]) == 0


def test_a_correction_fits_its_own_labels_in_any_order_only() -> None:
    found = Correction({"a": 1.0, "b": -1.0}, 2.0)
    assert found.span == 2
    assert found.apply(("b", "a"), (0.2, 0.8)) == found.apply(("a", "b"), (0.8, 0.2))[::-1]
    assert not found.fits(LABELS)
    assert Correction(temperature=2).fits(LABELS)
    with pytest.raises(ValueError, match="does not fit"):
        found.apply(LABELS, (0.2, 0.5, 0.3))
