"""The six steps' own code: exact statistics, the sieve, the regression, the prediction."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from config.errors import InputError
from producers.pipeline.plan import load_config, read_json
from producers.pipeline.prng import DrawData, drawn
from producers.pipeline.statistics import (
    binomial_tail,
    chi_squared,
    chi_squared_of_shares,
    folds,
    ridge,
)
from producers.pipeline.work import Done, StepError, Work
from tests.unit.pipeline_draws import CONFIG, DRAWS, GENERATOR, SEED, made


def played() -> dict[str, Done]:
    """The example's steps, one after another, with nobody asked."""
    loaded = load_config(CONFIG)
    data = DrawData(**read_json(DRAWS))
    done: dict[str, Done] = {}
    for one in loaded.config.steps:
        earlier = {name: before.result for name, before in done.items()}
        work = Work(data, loaded.config.holdout, loaded.config.seed, earlier, one.name)
        done[one.name] = one.step.code(work, one.read({}))
    return done


@pytest.fixture(scope="module")
def done() -> dict[str, Done]:
    return played()


def test_chi_squared_of_the_given_eight_shares_is_451_65() -> None:
    shares = ["12.3", "12.8", "12.1", "12.6", "12.4", "12.5", "12.2", "13.1"]
    found = chi_squared_of_shares(shares, 742_846)
    assert found.statistic == Fraction(742_846 * 76, 125_000)
    assert round(float(found.statistic), 2) == 451.65
    assert found.freedom == 7
    assert found.p_value < 1e-90


def test_chi_squared_of_equal_counts_is_nothing() -> None:
    found = chi_squared([5, 5, 5])
    assert (found.statistic, found.freedom, found.p_value) == (0, 2, 1.0)


@pytest.mark.parametrize("counts", [[], [3], [0, 0]])
def test_chi_squared_of_too_little_is_refused(counts: list[int]) -> None:
    with pytest.raises(InputError, match="chi-squared"):
        chi_squared(counts)


def test_the_tail_of_a_binomial_is_its_sum() -> None:
    # P(X >= 2) of 3 fair coins: 4 of 8.
    assert binomial_tail(3, 0.5, 2) == pytest.approx(0.5)
    assert binomial_tail(3, 0.5, 0) == 1.0


def test_ridge_without_a_penalty_finds_the_line_and_with_one_a_flatter_one() -> None:
    x = np.array([[0.0], [1.0], [2.0]])
    weights, intercept = ridge(x, np.array([1.0, 3.0, 5.0]), 0)
    assert weights == pytest.approx([2])
    assert intercept == pytest.approx(1)
    # The centred sum of squares is 2, so a penalty of 2 halves the slope.
    assert ridge(x, np.array([1.0, 3.0, 5.0]), 2)[0] == pytest.approx([1])


def test_folds_hold_each_row_once_and_repeat_themselves() -> None:
    found = folds(10, 3, seed=1)
    assert sum(found).tolist() == [1] * 10  # type: ignore[union-attr]
    assert [fold.tolist() for fold in found] == [fold.tolist() for fold in folds(10, 3, seed=1)]


def test_the_example_draws_are_as_they_were_made() -> None:
    assert DRAWS.read_text() == made()


def test_a_generator_draws_what_whole_numbers_draw() -> None:
    data = DrawData(**read_json(DRAWS))
    state, expected = SEED, []
    for _ in range(50):
        state = (GENERATOR["multiplier"] * state + GENERATOR["increment"]) % 2**32
        expected.append((state >> 3) % 1024)
    assert drawn(data.generator, np.array([SEED]), 50).tolist() == [expected]


def test_the_figures_of_each_step_are_those_that_success_can_name(done: dict[str, Done]) -> None:
    for one in load_config(CONFIG).config.steps:
        assert tuple(done[one.name].figures) == one.step.figures
        assert all(c.met(done[one.name].figures[name]) for name, c in one.success.items())


def test_the_sieve_leaves_the_seeds_that_share_the_true_ones_low_bits(
    done: dict[str, Done],
) -> None:
    # Residues of 8 after a shift by 3 hang on the 6 lowest bits of the state alone.
    survivors = [one["seed"] for one in done["window_optimizer"].result["survivors"]]
    assert survivors == [seed for seed in range(16384) if seed % 64 == SEED % 64]


def test_the_best_seed_is_the_true_one_but_for_bits_that_never_show(done: dict[str, Done]) -> None:
    found = done["prediction"]
    assert all(seed % 8192 == SEED % 8192 for seed in found.result["seeds"][:2])
    assert found.figures["hit_rate"] >= 0.85


def test_the_steps_repeat_themselves(done: dict[str, Done]) -> None:
    assert played() == done


def test_calculations_have_the_codes_own_results(done: dict[str, Done]) -> None:
    exact = [c.exact for one in done.values() for c in one.calculations]
    assert exact[:3] == [7, 40, 8]
    assert exact[-1] == pytest.approx(done["prediction"].figures["hit_rate"], abs=1e-6)


def test_noise_leaves_no_survivors_and_the_next_step_says_so() -> None:
    loaded = load_config(CONFIG)
    draws = np.random.default_rng(3).integers(0, 1024, 400).tolist()
    data = DrawData(generator=GENERATOR, draws=draws)  # type: ignore[arg-type]
    first, second = loaded.config.steps[:2]
    found = first.step.code(Work(data, 80, 7, {}, first.name), first.read({}))
    assert found.figures["survivors"] == 0
    with pytest.raises(StepError, match="no survivors.*--from 1"):
        second.step.code(Work(data, 80, 7, {first.name: found.result}, second.name),
                         second.read({}))  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"generator": GENERATOR | {"range": 1 << 20, "bits": 16}}, "range"),
        ({"draws": [5] * 19}, "at least 20"),
        ({"draws": [1024] * 20}, "draw 1024 is not below"),
        ({"generator": {}}, "multiplier"),
    ],
)
def test_malformed_draws_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DrawData(**{"generator": GENERATOR, "draws": [1] * 20, **changed})
