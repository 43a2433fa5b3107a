"""The closed sets that agents choose from; ``config/kinds/eddt.toml`` names the same labels."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Action(StrEnum):
    """What an engineer does in the next quarter of an hour."""

    CONTINUE = "CONTINUE"
    COMPLETE = "COMPLETE"
    SWITCH = "SWITCH"
    BLOCKED = "BLOCKED"
    COMMUNICATE = "COMMUNICATE"
    IDLE = "IDLE"


class TaskStatus(StrEnum):
    """Where a task stands in the workflow."""

    DRAFT = "draft"
    IN_REVIEW = "in review"
    CHANGES = "changes requested"
    APPROVED = "approved"
    RELEASED = "released"


class Tool(StrEnum):
    """What a step of a task is done with."""

    CAD = "CAD"
    SOLVER = "solver"
    SHEET = "sheet"
    VIEWER = "viewer"
    CONVERTER = "converter"
    ARCHIVE = "archive"


class Estimate(StrEnum):
    """How long a task is thought to take."""

    ONE = "1 hour"
    TWO = "2 hours"
    FOUR = "4 hours"
    EIGHT = "8 hours"

    @property
    def hours(self) -> int:
        """The number of hours."""
        return int(self.value.split()[0])


class Reply(StrEnum):
    """What becomes of an offered assignment."""

    ACCEPT = "accept"
    REJECT = "reject"


class Position(StrEnum):
    """Where a new task goes in the queue."""

    FIRST = "first"
    MIDDLE = "middle"
    LAST = "last"


class Unblock(StrEnum):
    """How a blocker is met."""

    WAIT = "WAIT"
    ESCALATE = "ESCALATE"
    WORKAROUND = "WORKAROUND"


class Quality(StrEnum):
    """What a reviewer makes of a piece of work."""

    PASS = "pass"
    FIX = "fix"
    REDO = "redo"


class Escalation(StrEnum):
    """Who is told of a delay."""

    HOLD = "hold"
    LEAD = "lead"
    MANAGER = "manager"


class Conflict(StrEnum):
    """How two engineers who want the same thing get on."""

    INSIST = "insist"
    YIELD = "yield"
    SHARE = "share"


class Bargain(StrEnum):
    """The answer to a wish from outside."""

    ACCEPT = "accept"
    COUNTER = "counter"
    REFUSE = "refuse"


CLOSED_SETS: Mapping[str, tuple[str, ...]] = {
    "next_action": tuple(Action),
    "task_transition": tuple(TaskStatus),
    "tool_selection": tuple(Tool),
    "time_estimate": tuple(Estimate),
    "accept_reject": tuple(Reply),
    "queue_position": tuple(Position),
    "blocker_resolution": tuple(Unblock),
    "quality_assessment": tuple(Quality),
    "escalation_decision": tuple(Escalation),
    "conflict_resolution": tuple(Conflict),
    "complex_negotiation": tuple(Bargain),
}
"""The labels of every kind whose choices are always the same."""
