"""Success by kind and lane, and which lanes are worth their cost."""

import numpy as np
import pytest

from routing.history import Choice, Count, drawn_to, learn, shrunk, top, worth


def test_few_rows_lean_on_their_class_and_many_on_themselves():
    counts = [Count(f"k{i}", "tier1", "chores", "local", 200, 180 - 8 * i) for i in range(6)]
    counts.append(Count("new", "tier1", "chores", "local", 1, 0))
    found = learn(counts)
    group = found.by_group["chores", "local"]
    assert abs(found.by_kind["new", "tier1"] - group) < 0.1
    assert found.by_kind["k0", "tier1"] == pytest.approx(0.9, abs=0.03)
    assert found.by_kind["k5", "tier1"] == pytest.approx(0.7, abs=0.03)


def test_what_was_never_seen_has_its_class_then_its_tier_then_nothing():
    found = learn([Count("a", "tier1", "chores", "local", 100, 90)])
    assert found.of("b", "tier1", "chores", "local") == found.by_group["chores", "local"]
    assert found.of("b", "tier1", "games", "local") == found.by_tier["local"]
    assert found.of("b", "tier3", "games", "cloud") is None


def test_shrinkage_lowers_the_error_of_many_small_groups():
    rng = np.random.default_rng(2)
    truth = rng.beta(14, 6, 400)
    n = np.full(400, 10.0)
    right = rng.binomial(10, truth).astype(float)
    drawn = drawn_to(float(right.sum() / n.sum()), right, n)
    assert np.mean((drawn - truth) ** 2) < 0.6 * np.mean((right / n - truth) ** 2)


def test_groups_that_differ_by_chance_alone_share_one_mean():
    rng = np.random.default_rng(4)
    n = np.full(300, 20.0)
    drawn = drawn_to(0.7, rng.binomial(20, 0.7, 300).astype(float), n)
    assert drawn.std() < 0.03


def test_a_group_without_rows_has_the_mean():
    found = shrunk(np.array([5.0, 0.0]), np.array([10.0, 0.0]), 0.4, 0.24)
    assert found[1] == pytest.approx(0.4)


def test_a_dearer_lane_that_is_worse_is_left_out_and_is_not_the_top():
    choices = [Choice("cheap", 0.6, 1), Choice("good", 0.8, 10), Choice("dear", 0.7, 15)]
    assert [c.lane for c in worth(choices, 1000)] == ["cheap", "good"]
    assert top(choices).lane == "good"


def test_a_lane_that_seldom_passes_is_skipped():
    choices = [Choice("cheap", 0.05, 5), Choice("middle", 0.1, 8), Choice("good", 0.9, 10)]
    assert [c.lane for c in worth(choices, 1000)] == ["good"]


def test_a_lane_that_often_passes_is_the_start():
    choices = [Choice("cheap", 0.9, 1), Choice("good", 0.95, 100)]
    assert [c.lane for c in worth(choices, 10_000)] == ["cheap", "good"]


def test_of_equal_lanes_one_is_kept():
    assert len(worth([Choice("a", 0.5, 1), Choice("b", 0.5, 1)], 10)) == 1
    assert worth([], 10) == []
