"""The watch over the stream of scores: few false alarms, real changes found."""

import json
from random import Random

from routing.drift import EPISODE, MOST, begin, from_json, watch


def scores(seed: int, n: int, a: float = 5.0, b: float = 2.0) -> list[float]:
    rng = Random(seed)
    return [rng.betavariate(a, b) for _ in range(n)]


def test_false_alarms_stay_below_alpha():
    alarms = 0
    for seed in range(100):
        state = begin(scores(seed, 300), alpha=0.1, seed=seed)
        alarms += watch(state, scores(1000 + seed, 1000)).drifted
    assert alarms <= 10


def test_a_shift_is_found_within_a_few_hundred_scores():
    found = 0
    for seed in range(40):
        state = watch(begin(scores(seed, 500), seed=seed), scores(1000 + seed, 200))
        found += watch(state, scores(2000 + seed, 300, 4.0, 3.0)).drifted
    assert found >= 38


def test_a_wider_spread_about_the_same_middle_is_found():
    found = 0
    for seed in range(20):
        state = begin(scores(seed, 500, 8, 8), seed=seed)
        found += watch(state, scores(2000 + seed, 400, 1.5, 1.5)).drifted
    assert found >= 18


def test_equal_scores_raise_no_alarm():
    assert not watch(begin([0.5] * 200), [0.5] * 1500).drifted


def test_it_goes_on_where_it_was_left():
    stream = scores(2, 120)
    whole = watch(begin(scores(1, 200)), stream)
    half = watch(begin(scores(1, 200)), stream[:60])
    rest = watch(from_json(json.loads(json.dumps(half.as_json()))), stream[60:])
    assert rest == whole


def test_it_keeps_a_bounded_number_of_scores():
    state = watch(begin(scores(1, 3 * MOST)), scores(2, EPISODE + 10))
    assert len(state.reference) == MOST
    assert len(state.stream) == 10
    assert state.episode == 2


def test_once_drifted_always_drifted():
    state = watch(begin(scores(1, 500)), [0.01] * 200)
    assert state.drifted
    assert watch(state, scores(2, 50)).drifted
