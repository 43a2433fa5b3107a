"""Budgets: no overspending, nothing kept that was not spent."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from config.catalog import CloudBudget
from ledger import budgets
from ledger.budgets import Bound, bounds_of, usage
from ledger.clock import SECOND
from ledger.database import writing
from ledger.records import Claimed
from routing.decision import ChoiceOutput, Decision, Preferences
from tests.unit.ledgers import fresh, rows

DAY = 86_400 * SECOND


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = fresh(tmp_path)
    yield engine
    engine.dispose()


def claimed(agent: str = "ann", day: int | None = 3, cap: str | None = None) -> Claimed:
    preferences = Preferences(max_cost_usd=None if cap is None else Decimal(cap))
    decision = Decision(
        kind="question", prompt="?", output=ChoiceOutput(labels=("A", "B")), key="k",
        agent_id=agent, day=day, preferences=preferences,
    )  # fmt: skip
    return Claimed("d", "r", decision, "tier3", 0, 1, 0, "{}", 0)


def test_every_scope_that_binds_is_drawn_on() -> None:
    budget = CloudBudget(
        per_run_usd=Decimal(10), per_day_usd=Decimal(5), per_request_usd=Decimal("0.01"),
        calls_per_agent_day=2, usd_per_agent_day=Decimal("0.5"),
    )  # fmt: skip
    assert bounds_of(budget, claimed(), now=2 * DAY) == (
        Bound("agent:r:ann:3", 500_000, 2),
        Bound("day:1970-01-03", 5_000_000),
        Bound("request:d", 10_000),
        Bound("run:r", 10_000_000),
    )
    assert bounds_of(CloudBudget(), claimed(), now=0) == ()
    assert bounds_of(CloudBudget(), claimed(cap="0.002"), now=0) == (Bound("request:d", 2_000),)
    of_the_calendar = bounds_of(CloudBudget(calls_per_agent_day=1), claimed(day=None), now=DAY)
    assert of_the_calendar == (Bound("agent:r:ann:1970-01-02", None, 1),)


def test_a_call_is_refused_when_its_most_does_not_fit(engine: Engine) -> None:
    bound = Bound("run:r", micros=100)
    with writing(engine) as connection:
        assert budgets.reserve(connection, [bound], 60) is None
        held_by_a_call = budgets.reserve(connection, [bound], 60)
        assert held_by_a_call is not None
        assert held_by_a_call.waits
        budgets.settle(connection, [bound.scope], reserved=60, spent=55)
        spent = budgets.reserve(connection, [bound], 60)
        assert spent is not None
        assert not spent.waits
        assert spent.reason == (
            "budget run:r: $0.000055 of $0.000100 is spent, a call may cost $0.000060"
        )
        assert budgets.reserve(connection, [bound], 45) is None


def test_a_refusal_of_one_scope_leaves_the_others_untouched(engine: Engine) -> None:
    wide, narrow = Bound("run:r", micros=1_000), Bound("day:today", micros=10)
    full = Bound("zone", micros=5)
    with writing(engine) as connection:
        refused = budgets.reserve(connection, [wide, narrow, full], 8)
    assert refused is not None
    assert refused.scope == "zone"
    assert {r["scope"]: (r["reserved_micros"], r["calls"]) for r in rows(engine, "budget")} == {
        "run:r": (0, 0), "day:today": (0, 0), "zone": (0, 0),
    }  # fmt: skip


def test_calls_are_counted_and_a_released_one_does_not_count(engine: Engine) -> None:
    bound = Bound("agent:r:ann:3", calls=1)
    with writing(engine) as connection:
        assert budgets.reserve(connection, [bound], 5) is None
        refused = budgets.reserve(connection, [bound], 5)
        assert refused is not None
        assert refused.reason == "budget agent:r:ann:3: 1 of 1 calls are made"
        budgets.release(connection, [bound.scope], 5)
        assert budgets.reserve(connection, [bound], 5) is None


def test_a_changed_limit_holds_from_the_next_call_on(engine: Engine) -> None:
    with writing(engine) as connection:
        assert budgets.reserve(connection, [Bound("run:r", micros=100)], 90) is None
        assert budgets.reserve(connection, [Bound("run:r", micros=80)], 1) is not None
        assert budgets.reserve(connection, [Bound("run:r", micros=200)], 90) is None


def test_reports_show_run_and_day_and_the_agents_past_their_mark(engine: Engine) -> None:
    bounds = [
        Bound("run:r", micros=100), Bound("day:1970-01-01", micros=1000),
        Bound("agent:r:ann:1", calls=1), Bound("agent:r:bob:1", calls=10), Bound("run:q", micros=9),
    ]  # fmt: skip
    with writing(engine) as connection:
        for bound in bounds:
            assert budgets.reserve(connection, [bound], 5) is None
        budgets.settle(connection, ["run:r"], 5, 85)
    found = {u.scope: (u.used_share, u.alert) for u in usage(engine, "r", 0.8, now=0)}
    assert found == {
        "run:r": (0.85, True), "day:1970-01-01": (0.005, False), "agent:r:ann:1": (1.0, True),
    }  # fmt: skip


STEP = st.tuples(
    st.sampled_from(["reserve", "settle", "release"]), st.integers(0, 60), st.integers(0, 60)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
@given(steps=st.lists(STEP, max_size=25), limit=st.integers(0, 150))
def test_whatever_happens_a_budget_is_kept(
    engine: Engine, steps: list[tuple[str, int, int]], limit: int
) -> None:
    scope = f"run:{limit}.{hash(tuple(steps))}"
    bound, flying, spent = Bound(scope, micros=limit), [], 0
    with writing(engine) as connection:
        for action, most, cost in steps:
            if action == "reserve":
                fits = spent + sum(flying) + most <= limit
                assert (budgets.reserve(connection, [bound], most) is None) == fits
                flying += [most] if fits else []
            elif flying and action == "settle":
                reserved = flying.pop()
                budgets.settle(connection, [scope], reserved, min(cost, reserved))
                spent += min(cost, reserved)
            elif flying:
                budgets.release(connection, [scope], flying.pop())
    assert spent + sum(flying) <= limit
    kept = [r for r in rows(engine, "budget") if r["scope"] == scope]
    if kept:
        assert (kept[0]["spent_micros"], kept[0]["reserved_micros"]) == (spent, sum(flying))
