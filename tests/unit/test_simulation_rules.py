"""What the simulation holds to be right, rule by rule."""

from __future__ import annotations

import pytest

from producers.simulation import rules
from producers.simulation.labels import Action, Bargain, TaskStatus, Tool
from producers.simulation.people import AgentState, hire
from producers.simulation.rules import Candidate
from producers.simulation.work import STEPS

WORKING, MEETING, BREAK = AgentState.WORKING, AgentState.IN_MEETING, AgentState.ON_BREAK


@pytest.mark.parametrize(
    ("state", "finished", "blocked", "waiting", "questions", "right"),
    [
        (BREAK, False, False, 1, 1, Action.IDLE),
        (AgentState.OFFLINE, None, False, 0, 0, Action.IDLE),
        (MEETING, True, True, 1, 0, Action.COMMUNICATE),
        (WORKING, True, True, 1, 1, Action.COMMUNICATE),
        (AgentState.BLOCKED, False, True, 1, 0, Action.SWITCH),
        (AgentState.BLOCKED, False, True, 0, 0, Action.BLOCKED),
        (AgentState.IDLE, None, False, 1, 0, Action.SWITCH),
        (AgentState.IDLE, None, False, 0, 0, Action.IDLE),
        (WORKING, True, False, 1, 0, Action.COMPLETE),
        (WORKING, False, False, 1, 0, Action.CONTINUE),
    ],
)
def test_people_come_before_obstacles_and_obstacles_before_work(
    state: AgentState, finished: bool | None, blocked: bool, waiting: int, questions: int,
    right: Action,
) -> None:  # fmt: skip
    found = rules.next_action(
        state, finished=finished, blocked=blocked, waiting=waiting, questions=questions
    )
    assert found is right


@pytest.mark.parametrize(
    ("status", "facts", "right"),
    [
        ("draft", {"open_items": 1}, "draft"),
        ("draft", {}, "in review"),
        ("in review", {"verdict": "passed"}, "approved"),
        ("in review", {"verdict": "errors found"}, "changes requested"),
        ("in review", {}, "in review"),
        ("changes requested", {"open_items": 2}, "changes requested"),
        ("changes requested", {}, "in review"),
        ("approved", {"gate": True}, "released"),
        ("approved", {"gate": False}, "approved"),
        ("released", {"gate": True}, "released"),
    ],
)
def test_a_task_moves_on_only_when_nothing_holds_it(
    status: str, facts: dict[str, object], right: str
) -> None:
    assert rules.task_transition(TaskStatus(status), **facts) == right  # type: ignore[arg-type]


def test_every_tool_has_steps_of_its_own() -> None:
    assert {rules.tool_selection(step) for step, _ in STEPS} == set(Tool)


@pytest.mark.parametrize(
    ("size", "familiar", "right"),
    [("small", True, 1), ("small", False, 2), ("medium", False, 4), ("large", False, 8)],
)
def test_what_was_never_done_takes_twice_as_long(size: str, familiar: bool, right: int) -> None:
    assert rules.time_estimate(size, familiar).hours == right


def test_offers_need_the_skill_and_room() -> None:
    assert rules.accept_reject("heat", ("stress", "heat"), 4) == "accept"
    assert rules.accept_reject("heat", ("stress", "heat"), 5) == "reject"
    assert rules.accept_reject("wiring", ("stress", "heat"), 0) == "reject"


@pytest.mark.parametrize(
    ("priority", "days", "right"),
    [("urgent", 6, "first"), ("low", 1, "first"), ("low", 2, "last"), ("normal", 2, "middle")],
)
def test_urgent_or_nearly_due_work_goes_first(priority: str, days: int, right: str) -> None:
    assert rules.queue_position(priority, days) == right


def test_priority_then_date_then_length_choose_among_tasks() -> None:
    late, urgent = Candidate("A", "low", 0), Candidate("B", "urgent", 6)
    soon, later = Candidate("C", "low", 2), Candidate("D", "low", 5)
    assert rules.task_prioritization([late, urgent]) == "B"
    assert rules.task_prioritization([later, soon]) == "C"
    assert rules.task_prioritization([later, late, soon]) == "A"


@pytest.mark.parametrize(
    ("slack", "extra", "paid", "right"),
    [
        (2, 1, True, Bargain.ACCEPT),
        (1, 2, True, Bargain.COUNTER),
        (2, 1, False, Bargain.COUNTER),
        (1, 2, False, Bargain.REFUSE),
    ],
)
def test_bargains_weigh_pay_against_time(
    slack: int, extra: int, paid: bool, right: Bargain
) -> None:
    assert rules.complex_negotiation(slack, extra, paid) is right


def test_the_other_defaults_follow_their_thresholds() -> None:
    assert rules.blocker_resolution(1, workaround=True) == "WAIT"
    assert rules.blocker_resolution(1.5, workaround=True) == "WORKAROUND"
    assert rules.blocker_resolution(1.5, workaround=False) == "ESCALATE"
    assert [rules.quality_assessment(s, n) for s, n in ((1, 0), (0, 3), (0, 2))] == [
        "redo", "fix", "pass",
    ]  # fmt: skip
    assert rules.escalation_decision(2, client=True, lead_knows=False) == "manager"
    assert rules.escalation_decision(2, client=False, lead_knows=False) == "lead"
    assert rules.escalation_decision(2, client=False, lead_knows=True) == "hold"
    assert [rules.conflict_resolution(a, b) for a, b in ((0, 1), (1, 0), (1, 1))] == [
        "insist", "yield", "share",
    ]  # fmt: skip


def test_any_ten_agents_have_every_role_and_ids_begin_with_it() -> None:
    agents = hire(10)
    assert len({agent.role.name for agent in agents}) == 8
    assert all(agent.id.split("-")[0] == agent.role.name for agent in agents)
