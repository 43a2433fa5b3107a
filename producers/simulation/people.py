"""Departments, roles and agents."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from producers.simulation.labels import TaskStatus
from producers.simulation.work import Task

FULL_QUEUE = 5
"""Waiting tasks from which a further assignment is declined."""
MOST_QUESTIONS = 3
"""Open questions beyond this are forgotten by those who asked."""


class AgentState(StrEnum):
    """What an agent is doing."""

    OFFLINE = "offline"
    IDLE = "idle"
    WORKING = "working"
    BLOCKED = "blocked"
    IN_MEETING = "in meeting"
    ON_BREAK = "on break"


AWAY = (AgentState.OFFLINE, AgentState.ON_BREAK, AgentState.IN_MEETING)
"""States in which an agent can be asked nothing but what it does next."""


@dataclass(frozen=True)
class Role:
    """A role, where it belongs and what it can do."""

    name: str
    department: str
    skills: tuple[str, ...]


DESIGNER = Role("designer", "design", ("drawing", "files"))
DRAFTER = Role("drafter", "design", ("drawing", "inspection"))
ANALYST = Role("analyst", "analysis", ("stress", "heat"))
TESTER = Role("tester", "analysis", ("testing", "stress"))
ELECTRICIAN = Role("electrician", "systems", ("wiring", "drawing"))
PLANNER = Role("planner", "systems", ("costing", "inspection"))
INSPECTOR = Role("inspector", "quality", ("inspection", "testing"))
LIBRARIAN = Role("librarian", "quality", ("files", "costing"))

STAFFING = (
    DESIGNER,
    ANALYST,
    INSPECTOR,
    DRAFTER,
    ELECTRICIAN,
    TESTER,
    PLANNER,
    DESIGNER,
    LIBRARIAN,
    ANALYST,
)
"""Agents are hired in this order, over and over: any ten have every role."""
SKILLS = tuple(sorted({skill for role in STAFFING for skill in role.skills}))


@dataclass(eq=False)
class Agent:
    """One engineer: its tasks, its day, and what waits for it."""

    index: int
    role: Role
    state: AgentState = AgentState.OFFLINE
    task: Task | None = None
    queue: list[Task] = field(default_factory=list)
    desk: list[Task] = field(default_factory=list)
    """Its tasks in review, sent back or approved."""
    offer: Task | None = None
    arrived: Task | None = None
    """An accepted task that has no place in the queue yet."""
    questions: int = 0
    day: tuple[AgentState | None, ...] = ()
    """For each tick of the day where the agent is; ``None`` is at its desk."""

    @property
    def id(self) -> str:
        """For example ``designer-007``; the role stands before the first ``-``."""
        return f"{self.role.name}-{self.index + 1:03d}"

    @property
    def away(self) -> bool:
        """Whether it is offline, on a break or in a meeting."""
        return self.state in AWAY

    @property
    def ready(self) -> list[Task]:
        """The queued tasks that could be begun now, in the order of the queue."""
        if self.task is not None and self.task.blocker and self.task.blocker.everything:
            return []
        return [task for task in self.queue if task.blocker is None]

    def ask(self) -> None:
        """Somebody has a question for this agent."""
        self.questions = min(MOST_QUESTIONS, self.questions + 1)

    def take(self, task: Task) -> None:
        """Work on this task of the queue; the current one goes back to the queue's end."""
        self.queue.remove(task)
        if self.task is not None:
            self.queue.append(self.task)
        self.task = task

    def hand_in(self, look_at: int) -> None:
        """The current task leaves the bench for the desk."""
        if self.task is not None:
            self.task.look_at = look_at
            self.desk.append(self.task)
            self.task = None

    def due_on_desk(self, tick: int) -> Task | None:
        """The first task on the desk whose next status is to be decided now."""
        for task in self.desk:
            if task.look_at <= tick:
                return task
        return None

    def under_review(self) -> Task | None:
        """A task of this agent that waits for a reviewer's verdict."""
        for task in self.desk:
            if task.status is TaskStatus.IN_REVIEW and task.verdict is None:
                return task
        return None


def hire(count: int, first: int = 0) -> list[Agent]:
    """``count`` agents over all departments, with indices from ``first``."""
    return [Agent(first + n, STAFFING[n % len(STAFFING)]) for n in range(count)]
