"""The ordinary situations of an agent, and which decision each of them asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from producers.simulation import rules
from producers.simulation.labels import Action, Estimate, Position, Reply, TaskStatus, Tool
from producers.simulation.people import FULL_QUEUE, Agent
from producers.simulation.work import COMPLEXITY, Task, due_words
from producers.simulation.world import World
from routing.decision import Signals

NO_DEADLINE = 30.0
"""Days until the deadline of an agent that has no task."""


@dataclass(frozen=True)
class Situation:
    """What one agent has to decide now.

    ``values`` fill the state of the kind's template. ``fallback`` is what happens when the
    answer is of no use. ``task``, ``tasks`` and ``other`` are what the answer will act on.
    """

    kind: str
    values: Mapping[str, str | int]
    fallback: str
    labels: tuple[str, ...] | None = None
    expected: str | None = None
    task: Task | None = None
    tasks: tuple[Task, ...] = ()
    other: Agent | None = None
    creativity: bool = False
    multi_agent: bool = False
    novel: bool = False

    def signals(self, agent: Agent, tick: int) -> Signals:
        """What the router may know of it: of the task in question, or the one at hand."""
        task = self.task or agent.task
        return Signals(
            queue_length=len(agent.queue),
            deadline_days=NO_DEADLINE if task is None else task.due_in_quarter_days(tick) / 4,
            task_complexity="medium" if task is None else COMPLEXITY[task.size],
            dependencies=0 if task is None else task.dependencies,
            creativity=self.creativity,
            multi_agent=self.multi_agent,
            novel=self.novel,
        )


def ordinary_situation(world: World, agent: Agent) -> Situation:
    """The first that fits: an offer, a task to place, one to move on, to estimate, to equip."""
    if not agent.away:
        if agent.offer is not None:
            return _offered(agent, agent.offer)
        if agent.arrived is not None:
            return _arrived(world, agent, agent.arrived)
        moving = agent.due_on_desk(world.tick)
        if moving is not None:
            return _moving(world, agent, moving)
        task = agent.task
        if task is not None and task.blocker is None and not task.finished:
            if task.estimate is None:
                return _unestimated(task)
            if task.tool is None:
                return _unequipped(task)
    return _what_next(agent)


def _offered(agent: Agent, task: Task) -> Situation:
    skills, waiting = agent.role.skills, len(agent.queue)
    return Situation(
        kind="accept_reject",
        values={
            "skill": task.skill,
            "skills": ", ".join(skills),
            "room": "full" if waiting >= FULL_QUEUE else "has room",
        },
        fallback=Reply.REJECT,
        expected=rules.accept_reject(task.skill, skills, waiting),
        task=task,
    )


def _arrived(world: World, agent: Agent, task: Task) -> Situation:
    days = task.days_left(world.tick)
    return Situation(
        kind="queue_position",
        values={"priority": task.priority, "due": due_words(days)},
        fallback=Position.LAST,
        expected=rules.queue_position(task.priority, days),
        task=task,
    )


def _moving(world: World, agent: Agent, task: Task) -> Situation:
    gate = world.gates[agent.role.department]
    match task.status:
        case TaskStatus.IN_REVIEW:
            fact = f"Verdict: {task.verdict or 'none yet'}"
        case TaskStatus.APPROVED:
            fact = f"Release gate: {'open' if gate else 'closed'}"
        case _:
            fact = f"Open items: {'some' if task.open_items else 'none'}"
    return Situation(
        kind="task_transition",
        values={"status": task.status, "fact": fact},
        fallback=task.status,
        expected=transition_by_rule(world, agent, task),
        task=task,
    )


def transition_by_rule(world: World, agent: Agent, task: Task) -> TaskStatus:
    """The status that the workflow foresees for a task on this agent's desk."""
    return rules.task_transition(
        task.status,
        open_items=task.open_items,
        verdict=task.verdict,
        gate=world.gates[agent.role.department],
    )


def _unestimated(task: Task) -> Situation:
    return Situation(
        kind="time_estimate",
        values={
            "size": task.size,
            "familiar": "done before" if task.familiar else "never done before",
        },
        fallback=Estimate.FOUR,
        expected=rules.time_estimate(task.size, task.familiar),
        task=task,
    )


def _unequipped(task: Task) -> Situation:
    step = task.steps[task.step][0]
    return Situation(
        kind="tool_selection",
        values={"step": step},
        fallback=Tool.VIEWER,
        expected=rules.tool_selection(step),
        task=task,
    )


def _what_next(agent: Agent) -> Situation:
    task, waiting = agent.task, len(agent.ready)
    blocked = task is not None and task.blocker is not None
    return Situation(
        kind="next_action",
        values={
            "state": agent.state,
            "questions": "open questions" if agent.questions else "no questions",
            "waiting": "tasks waiting" if waiting else "nothing waiting",
            "task": "no task" if task is None else f"task {task.progress}",
        },
        fallback=Action.CONTINUE,
        expected=rules.next_action(
            agent.state,
            finished=None if task is None else task.finished,
            blocked=blocked,
            waiting=waiting,
            questions=agent.questions,
        ),
        task=task,
    )
