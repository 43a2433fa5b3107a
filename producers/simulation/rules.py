"""What the simulation itself holds to be right: pure functions from a situation to a label.

Tier-1 rules become ``Decision.expected``. The rules of tiers 2 and 3 are only defaults for a
decision that nobody answers: there, judgement is what the model is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from producers.simulation.labels import (
    Action,
    Bargain,
    Conflict,
    Escalation,
    Estimate,
    Position,
    Quality,
    Reply,
    TaskStatus,
    Tool,
    Unblock,
)
from producers.simulation.people import FULL_QUEUE, AgentState
from producers.simulation.work import STEPS

PATIENCE_HOURS = 1
"""A blocker that lifts within this is waited for."""
MANY_ERRORS = 2
"""More small errors than this must be fixed."""

_TOOL_FOR = dict(STEPS)
_RANKS = {"urgent": 0, "normal": 1, "low": 2}
_ESTIMATES = {
    ("small", True): Estimate.ONE,
    ("small", False): Estimate.TWO,
    ("medium", True): Estimate.TWO,
    ("medium", False): Estimate.FOUR,
    ("large", True): Estimate.FOUR,
    ("large", False): Estimate.EIGHT,
}


def next_action(
    state: AgentState, *, finished: bool | None, blocked: bool, waiting: int, questions: int
) -> Action:
    """What to do next. ``finished`` is ``None`` without a task; ``waiting`` tasks could be begun.

    People come first, then a way round an obstacle, then the work itself.
    """
    if state in (AgentState.OFFLINE, AgentState.ON_BREAK):
        return Action.IDLE
    if state is AgentState.IN_MEETING or questions:
        return Action.COMMUNICATE
    if finished is None or blocked:
        if waiting:
            return Action.SWITCH
        return Action.BLOCKED if blocked else Action.IDLE
    return Action.COMPLETE if finished else Action.CONTINUE


def task_transition(
    status: TaskStatus, *, open_items: int = 0, verdict: str | None = None, gate: bool = False
) -> TaskStatus:
    """The status a task moves to, or its own if it must stay.

    Work with nothing open goes to review; a verdict sends it back or approves it; an approved
    task is released when the release gate is open.
    """
    if status in (TaskStatus.DRAFT, TaskStatus.CHANGES):
        return status if open_items else TaskStatus.IN_REVIEW
    if status is TaskStatus.IN_REVIEW and verdict is not None:
        return TaskStatus.APPROVED if verdict == "passed" else TaskStatus.CHANGES
    if status is TaskStatus.APPROVED and gate:
        return TaskStatus.RELEASED
    return status


def tool_selection(step: str) -> Tool:
    """The tool that a step is done with."""
    return _TOOL_FOR[step]


def time_estimate(size: str, familiar: bool) -> Estimate:
    """1, 2 or 4 hours by size, and twice that for what was never done before."""
    return _ESTIMATES[size, familiar]


def accept_reject(skill: str, skills: Sequence[str], waiting: int) -> Reply:
    """Accept what one can do and has room for."""
    return Reply.ACCEPT if skill in skills and waiting < FULL_QUEUE else Reply.REJECT


def queue_position(priority: str, days_left: int) -> Position:
    """Urgent work and work due by tomorrow goes first, low priority last."""
    if priority == "urgent" or days_left <= 1:
        return Position.FIRST
    return Position.LAST if priority == "low" else Position.MIDDLE


@dataclass(frozen=True)
class Candidate:
    """A task among which one is to be chosen; ``days`` until due."""

    label: str
    priority: str
    days: int


def task_prioritization(candidates: Sequence[Candidate]) -> str:
    """The most urgent task, then the one due first."""
    return min(candidates, key=lambda c: (_RANKS[c.priority], c.days)).label


def blocker_resolution(wait_hours: float, workaround: bool) -> Unblock:
    """Wait for what is quick, else go round it if there is a way, else ask for help."""
    if wait_hours <= PATIENCE_HOURS:
        return Unblock.WAIT
    return Unblock.WORKAROUND if workaround else Unblock.ESCALATE


def quality_assessment(serious: int, small: int) -> Quality:
    """Serious errors mean doing it over; a few small ones pass."""
    if serious:
        return Quality.REDO
    return Quality.FIX if small > MANY_ERRORS else Quality.PASS


def escalation_decision(late_days: int, client: bool, lead_knows: bool) -> Escalation:
    """A delay that the client feels goes to the manager, any other to the lead, once."""
    if client and late_days >= 2:
        return Escalation.MANAGER
    return Escalation.LEAD if late_days >= 1 and not lead_knows else Escalation.HOLD


def conflict_resolution(mine_days: int, theirs_days: int) -> Conflict:
    """Who is due first goes first."""
    if mine_days == theirs_days:
        return Conflict.SHARE
    return Conflict.INSIST if mine_days < theirs_days else Conflict.YIELD


def complex_negotiation(slack_days: int, extra_days: int, paid: bool) -> Bargain:
    """Accept what is paid and fits, refuse what is neither, bargain over the rest."""
    fits = slack_days >= extra_days
    if fits and paid:
        return Bargain.ACCEPT
    return Bargain.COUNTER if fits or paid else Bargain.REFUSE
