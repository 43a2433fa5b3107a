"""Certified thresholds and the bounds beneath them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.bounds import lower, p_of_mean, p_of_next, p_of_share, shared, upper
from routing.certify import (
    NEVER,
    Certificate,
    Judged,
    Promise,
    Scope,
    certify,
    certify_all,
    loosest,
)

SCOPE = Scope("triage", "tier1", "small", "sha-1", "triage@1", "")
NOW = 1_700_000_000_000_000


def honest(seed: int, n: int, labels: tuple[str, ...] = ("",)) -> list[Judged]:
    """Answers that are right as often as they say."""
    rng = np.random.default_rng(seed)
    p = rng.beta(6, 1, n)
    return [
        Judged(float(x), bool(rng.random() < x), labels[i % len(labels)]) for i, x in enumerate(p)
    ]


@pytest.mark.parametrize(
    ("errors", "n", "delta", "bound"),
    [
        (0, 10, 0.05, 0.258866),  # 1 - 0.05 ** (1 / 10)
        (1, 10, 0.05, 0.394163),
        (3, 100, 0.05, 0.075711),
        (10, 100, 0.025, 0.176223),
        (5, 5, 0.1, 1.0),
    ],
)
def test_clopper_and_pearson_as_in_the_tables(errors, n, delta, bound):
    assert upper(errors, n, delta) == pytest.approx(bound, abs=2e-6)
    assert lower(n - errors, n, delta) == pytest.approx(1 - bound, abs=2e-6)


@settings(deadline=None)  # the first example imports SciPy
@given(st.integers(1, 500), st.data(), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_the_p_value_and_the_bound_say_the_same(n, data, alpha, delta):
    errors = data.draw(st.integers(0, n))
    p, bound = p_of_share(errors, n, alpha), upper(errors, n, delta)
    if abs(p - delta) > 1e-9:
        assert (p <= delta) == (bound <= alpha)


@pytest.mark.parametrize(("errors", "n", "delta"), [(-1, 5, 0.1), (6, 5, 0.1), (1, 5, 0.0)])
def test_counts_that_are_none_are_refused(errors, n, delta):
    with pytest.raises(ValueError):
        upper(errors, n, delta)


def test_betting_seldom_refutes_a_true_claim_and_finds_a_false_one():
    rng = np.random.default_rng(3)
    border = [rng.choice([-1.0, 1.0, 0.0], 300, p=[0.2, 0.2, 0.6]) for _ in range(400)]
    assert np.mean([p_of_mean(x, -1, 1, 0.1) <= 0.1 for x in border]) <= 0.1
    better = [rng.choice([-1.0, 1.0, 0.0], 300, p=[0.25, 0.12, 0.63]) for _ in range(200)]
    assert np.mean([p_of_mean(x, -1, 1, 0.1) <= 0.1 for x in better]) >= 0.8


def test_nothing_is_shown_by_nothing():
    assert p_of_mean([], -1, 1, 0.1) == 1.0
    assert p_of_next([0.0], 10) == 1.0
    assert p_of_share(0, 0, 0.1) == 1.0


def test_the_next_rows_vary_too():
    x = np.random.default_rng(1).normal(-0.1, 1, 400)
    assert p_of_next(x, 400) > p_of_next(x, 10**9)


def test_delta_is_divided_by_weight():
    assert shared(0.1, [1, 3]) == pytest.approx([0.025, 0.075])


def test_certified_thresholds_keep_their_promise():
    promise, broken, found = Promise(0.1, 0.1), 0, 0
    for seed in range(200):
        threshold = loosest(honest(seed, 600), promise)
        if threshold is not None:
            found += 1
            broken += _error_above(threshold) > promise.alpha
    assert found > 150
    assert broken / 200 <= promise.delta


def _error_above(threshold: float) -> float:
    """Of answers whose probability is Beta(6, 1) and true: 1 - E[p | p >= threshold]."""
    return 1 - (6 / 7) * (1 - threshold**7) / (1 - threshold**6)


def test_too_few_labels_certify_nothing_and_nothing_is_accepted():
    found = certify(SCOPE, [Judged(0.99, True)] * 10, Promise(), NOW)
    assert not found.holds
    assert found.threshold("any") is None
    assert not found.accepts(1.0)
    assert (found.n, found.errors, found.labels) == (0, 0, 10)


def test_no_labels_at_all():
    found = certify(SCOPE, [], Promise(), NOW)
    assert not found.accepts(1.0)
    assert certify_all({}, Promise(), NOW) == {}


def test_a_label_that_is_often_wrong_has_no_acceptance_beside_one_that_is_right():
    rng = np.random.default_rng(5)
    rows = [Judged(float(rng.uniform(0.8, 1)), True, "good") for _ in range(300)]
    rows += [
        Judged(float(rng.uniform(0.8, 1)), bool(rng.random() < 0.5), "bad") for _ in range(300)
    ]
    found = certify(SCOPE, rows, Promise(), NOW)
    assert found.accepts(0.9, "good")
    assert found.thresholds["bad"] == NEVER
    assert not found.accepts(1.0, "bad")
    assert not found.accepts(1.0, "never seen")
    assert found.errors == 0


def test_a_seldom_label_shares_the_threshold_of_the_rest():
    rows = honest(1, 2000, ("a", "b")) + [Judged(0.99, True, "seldom")] * 30
    found = certify(SCOPE, rows, Promise(0.2, 0.1), NOW)
    rows += [Judged(0.99, True, "as seldom")]
    found = certify(SCOPE, rows, Promise(0.2, 0.1), NOW)
    assert set(found.thresholds) == {"a", "b", "seldom", "as seldom"}
    assert found.accepts(0.99, "seldom")
    assert found.threshold("seldom") == found.threshold("as seldom")


def test_a_label_that_no_answer_had_is_never_accepted():
    found = certify(SCOPE, [Judged(0.9, True, "seen")] * 100, Promise(), NOW)
    assert found.accepts(0.9, "seen")
    assert not found.accepts(1.0, "never seen")
    assert not found.accepts(1.0)


def test_with_mixed_propensities_few_thresholds_are_tested(monkeypatch):
    tested = []
    betting = "routing.certify.p_of_mean"
    monkeypatch.setattr(betting, lambda x, *a: tested.append(1) or p_of_mean(x, *a))
    rng = np.random.default_rng(1)
    rows = [
        Judged(float(p), bool(rng.random() > 0.01), propensity=float(rng.choice([0.5, 1.0])))
        for p in rng.uniform(0.5, 1, 5000)
    ]
    assert (loosest(rows, Promise(0.2, 0.1)) or NEVER) < 0.501
    assert len(tested) <= 500


def test_an_answer_without_a_probability_is_never_accepted():
    found = Certificate(SCOPE, 0.1, 0.1, {"": 0.5})
    assert found.accepts(0.5)
    assert not found.accepts(0.4999)
    assert not found.accepts(None)


@pytest.mark.parametrize("what", ["kind", "lane", "model", "fingerprint", "template", "adapter"])
def test_a_certificate_lapses_when_anything_it_names_changes(what):
    found = Certificate(SCOPE, 0.1, 0.1, {"": 0.5})
    assert found.lapse(SCOPE) is None
    changed = Scope(**{**vars(SCOPE), what: "other"})
    assert what in (found.lapse(changed) or "")


def test_delta_is_shared_among_what_is_certified_together():
    other = Scope("other", "tier1", "small", "sha-1", "t@1")
    found = certify_all({SCOPE: honest(1, 500), other: honest(2, 500)}, Promise(0.1, 0.1), NOW)
    assert [one.delta for one in found.values()] == [0.05, 0.05]
    alone = certify(SCOPE, honest(1, 500), Promise(0.1, 0.1), NOW)
    assert (found[SCOPE].threshold() or NEVER) >= (alone.threshold() or NEVER)


def test_rows_count_by_the_inverse_of_their_propensity():
    promise, broken = Promise(0.2, 0.1), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        p = rng.uniform(0.5, 1, 3000)
        wrong = rng.random(3000) < np.where(p > 0.8, 0.05, 0.5)
        chance = np.where(wrong, 0.2, 0.6)  # wrong ones were looked at more seldom
        looked = rng.random(3000) < chance
        rows = [
            Judged(float(a), not b, propensity=float(c))
            for a, b, c in zip(p[looked], wrong[looked], chance[looked], strict=True)
        ]
        threshold = loosest(rows, promise)
        broken += threshold is not None and _true_error(threshold) > promise.alpha
    assert broken <= 10


def _true_error(threshold: float) -> float:
    low = max(0.0, 0.8 - threshold)
    return (0.5 * low + 0.05 * min(0.2, 1 - threshold)) / (1 - threshold)


@pytest.mark.parametrize(("alpha", "delta"), [(0, 0.1), (1, 0.1), (0.1, 0), (0.1, 1.5)])
def test_promises_outside_their_range_are_refused(alpha, delta):
    with pytest.raises(ValueError, match="must be above 0"):
        Promise(alpha, delta)
