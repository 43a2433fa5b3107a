"""Paid calls on record: intended, booked, lost, late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ledger import lifecycle
from ledger.budgets import Bound
from ledger.calls import Begun, Intended, begin, close_lost, close_orphans
from ledger.records import Claimed, Tried
from ledger.rulings import Followers, Refusal
from ledger.runs import start_run
from routing.decision import Complexity, Hop, Plan, Status
from tests.unit.ledgers import LEASE_US, claim_one, fresh, planned, rows

RUN = Bound("run:r", micros=100)


@dataclass
class Desk:
    """One decision on a paid lane."""

    engine: Engine
    id: str

    def claim(self, token: str, now: int, lane: str = "tier3") -> Claimed:
        return claim_one(self.engine, self.id, token, now, lane)

    def begin(self, token: str, now: int, most: int = 40, bound: Bound = RUN) -> Begun:
        call = Intended(self.id, "cloud", "f", most, (bound,), None, None)
        return begin(self.engine, token, call, now)

    def record(self, token: str, attempt: str, now: int, **more: Any) -> Followers:
        tried = Tried(self.id, "cloud", "f", attempt_id=attempt, **more)
        return lifecycle.record(self.engine, token, [tried], now)

    @property
    def row(self) -> dict[str, Any]:
        return rows(self.engine, "decision")[0]

    @property
    def attempts(self) -> list[tuple[int, str, int, int]]:
        """(number, outcome, cost, estimate)"""
        return [
            (a["number"], a["outcome"], a["cost_micros"], a["estimated_micros"])
            for a in rows(self.engine, "attempt")
        ]

    @property
    def budget(self) -> tuple[int, int, int]:
        """Spent, reserved, calls."""
        [row] = rows(self.engine, "budget")
        return row["spent_micros"], row["reserved_micros"], row["calls"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    engine = fresh(tmp_path)
    run = start_run(engine, mode="test", profile="tiny", now=0)
    [decision] = lifecycle.submit(engine, run.id, [planned("q", "tier3", "tier4")], now=0).ids
    yield Desk(engine, decision)
    engine.dispose()


def test_the_intent_stands_before_the_call_and_becomes_its_result(desk: Desk) -> None:
    desk.claim("t", 10)
    begun = desk.begin("t", 11)
    assert desk.attempts == [(1, "intent", 0, 40)]
    assert desk.budget == (0, 40, 1)
    followers = desk.record("t", begun.attempt_id or "", 12, raw="A", cost_micros=25)
    assert [m.task for m in followers.messages] == ["uptier.check"]
    assert desk.attempts == [(1, "answered", 25, 0)]
    assert desk.budget == (25, 0, 1)
    assert desk.row["cost_micros"] == 25


def test_a_call_that_the_provider_refused_costs_nothing(desk: Desk) -> None:
    desk.claim("t", 10)
    begun = desk.begin("t", 11)
    desk.record("t", begun.attempt_id or "", 12, error="HTTP 529", again_at=50)
    assert desk.attempts == [(1, "failed", 0, 0)]
    assert desk.budget == (0, 0, 0)


def test_a_call_that_timed_out_is_booked_at_its_most(desk: Desk) -> None:
    desk.claim("t", 10)
    begun = desk.begin("t", 11)
    desk.record("t", begun.attempt_id or "", 12, error="slow", unknown_charge_micros=40)
    assert desk.attempts == [(1, "unknown_charge", 0, 40)]
    assert desk.budget == (40, 0, 1)


def test_who_lost_the_lease_begins_no_call(desk: Desk) -> None:
    desk.claim("t", 10)
    desk.claim("u", 20 + LEASE_US)
    assert desk.begin("t", 30 + LEASE_US) == Begun()
    assert desk.attempts == []


def lose(desk: Desk, *, repeats: bool, max_attempts: int = 3) -> tuple[list[Claimed], str]:
    """A worker dies during its call, and another claims the decision."""
    desk.claim("t", 10)
    first = desk.begin("t", 11).attempt_id or ""
    again = desk.claim("u", 20 + LEASE_US)
    going_on, _ = close_lost(
        desk.engine,
        "u",
        [again],
        repeats=repeats,
        max_attempts=max_attempts,
        lost_call=lambda c: Tried(c.id, "", "", error="lost", climb_to=(1, "tier4")),
        now=21 + LEASE_US,
    )
    return going_on, first


def test_a_lost_call_is_an_unknown_charge_and_not_repeated(desk: Desk) -> None:
    going_on, _ = lose(desk, repeats=False)
    assert going_on == []
    assert desk.attempts == [(1, "unknown_charge", 0, 40)]
    assert desk.budget == (40, 0, 1)
    assert (desk.row["lane"], desk.row["state"]) == ("tier4", "queued")


def test_a_lost_call_is_repeated_where_the_lane_says_so(desk: Desk) -> None:
    going_on, _ = lose(desk, repeats=True)
    assert [c.tries for c in going_on] == [1]
    begun = desk.begin("u", 30 + LEASE_US)
    desk.record("u", begun.attempt_id or "", 31 + LEASE_US, raw="A", cost_micros=20)
    assert desk.attempts == [(1, "unknown_charge", 0, 40), (2, "answered", 20, 0)]
    assert desk.budget == (60, 0, 2)


def test_a_lost_call_counts_as_a_try(desk: Desk) -> None:
    going_on, _ = lose(desk, repeats=True, max_attempts=1)
    assert going_on == []
    assert desk.row["lane"] == "tier4"


def test_a_result_that_comes_too_late_brings_its_price_and_no_answer(desk: Desk) -> None:
    _, first = lose(desk, repeats=True)
    followers = desk.record("t", first, 40 + LEASE_US, raw="B", cost_micros=15)
    assert followers == Followers()
    assert desk.attempts == [(1, "late", 15, 0)]
    assert desk.budget == (15, 0, 1)
    row = desk.row
    assert (row["state"], row["lease_token"], row["cost_micros"]) == ("running", "u", 15)


def test_a_result_is_booked_once(desk: Desk) -> None:
    desk.claim("t", 10)
    first = desk.begin("t", 11).attempt_id or ""
    for _ in range(2):
        desk.record("t", first, 12, raw="A", cost_micros=25)
    assert desk.budget == (25, 0, 1)
    assert desk.row["cost_micros"] == 25


def test_a_cancelled_decision_takes_no_answer_but_its_call_is_booked(desk: Desk) -> None:
    desk.claim("t", 10)
    first = desk.begin("t", 11).attempt_id or ""
    assert len(lifecycle.cancel(desk.engine, 12, ids=[desk.id]).settled) == 1
    assert lifecycle.cancel(desk.engine, 13, ids=[desk.id]).settled == []
    desk.record("t", first, 14, raw="A", cost_micros=25)
    assert (desk.row["status"], desk.row["answer"]) == ("cancelled", "")
    assert desk.attempts == [(1, "late", 25, 0)]


def test_an_intent_that_nobody_will_finish_is_booked_after_a_grace(desk: Desk) -> None:
    desk.claim("t", 10)
    desk.begin("t", 11)
    assert close_orphans(desk.engine, now=10_000, grace_us=1_000) == 0  # still being worked on
    lifecycle.cancel(desk.engine, 12, ids=[desk.id])
    assert close_orphans(desk.engine, now=900, grace_us=1_000) == 0
    assert close_orphans(desk.engine, now=10_000, grace_us=1_000) == 1
    assert desk.attempts == [(1, "unknown_charge", 0, 40)]
    assert desk.budget == (40, 0, 1)


def test_a_spent_budget_refuses_and_one_that_is_held_waits(desk: Desk) -> None:
    desk.claim("t", 10)
    refused = desk.begin("t", 11, most=101)
    assert refused.budget is not None
    assert "run:r" in refused.budget
    assert desk.attempts == []


LOWER = Plan(
    hops=(Hop(lane="tier3", reason="r"), Hop(lane="tier1", reason="stands in")),
    complexity=Complexity.SIMPLE,
)


def test_a_refused_decision_goes_to_a_lower_lane_and_ends_as_refused(desk: Desk) -> None:
    desk.claim("t", 10)
    refusal = Refusal(desk.id, Status.BUDGET, "budget run:r is spent", lower=LOWER)
    [message] = lifecycle.turn_away(desk.engine, "t", [refusal], 20).messages
    assert message.queue == "tier1"
    desk.claim("u", 30, lane="tier1")
    lifecycle.bury(desk.engine, "u", [desk.id], "poison", 40, Status.DEAD)
    assert desk.row["status"] == "dead"


def test_a_refused_decision_without_any_lane_waits_for_the_breaker_or_ends(desk: Desk) -> None:
    desk.claim("t", 10)
    waits = Refusal(desk.id, Status.DEGRADED, "breaker open", again_at=500)
    lifecycle.turn_away(desk.engine, "t", [waits], 20)
    assert (desk.row["state"], desk.row["not_before"], desk.row["tries"]) == ("queued", 500, 0)
    desk.claim("u", 600)
    ends = Refusal(desk.id, Status.BUDGET, "budget run:r is spent")
    lifecycle.turn_away(desk.engine, "u", [ends], 700)
    assert (desk.row["status"], desk.row["reason"]) == ("budget", "budget run:r is spent")


def test_a_failure_without_any_answer_or_lane_left_goes_to_a_lower_lane(desk: Desk) -> None:
    plan = LOWER.model_copy(update={"hops": (*LOWER.hops[:1], Hop(lane="tier4", reason="r"))})
    desk.claim("t", 10)
    first = desk.begin("t", 11).attempt_id or ""
    desk.record("t", first, 12, error="HTTP 402", climb_to=(1, "tier4"))
    desk.claim("u", 20, lane="tier4")
    second = desk.begin("u", 21).attempt_id or ""
    lower = plan.model_copy(update={"hops": (*plan.hops, LOWER.hops[1])})
    desk.record("u", second, 22, error="HTTP 500", lower=lower)
    row = desk.row
    assert (row["lane"], row["state"], row["held_status"]) == ("tier1", "queued", "degraded")
    assert row["held_reason"] == "tier4 failed: HTTP 500"


def test_an_intent_whose_answer_was_lost_is_the_same_intent(desk: Desk) -> None:
    desk.claim("t", 10)
    first, again = desk.begin("t", 11), desk.begin("t", 12)
    assert first == again
    assert desk.budget == (0, 40, 1)


def test_a_refusal_that_comes_late_gives_everything_back(desk: Desk) -> None:
    _, first = lose(desk, repeats=True)
    desk.record("t", first, 40 + LEASE_US, error="HTTP 529")
    assert desk.attempts == [(1, "failed", 0, 0)]
    assert desk.budget == (0, 0, 0)


def test_what_no_database_takes_is_replaced(desk: Desk) -> None:
    desk.claim("t", 10)
    first = desk.begin("t", 11).attempt_id or ""
    desk.record("t", first, 12, error="said \ud800 and \0", unknown_charge_micros=40)
    assert rows(desk.engine, "attempt")[0]["error"] == "said ? and \ufffd"
