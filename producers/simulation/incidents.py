"""What needs some judgement (tier 2): each function lets one thing befall one agent."""

from __future__ import annotations

from producers.simulation import rules
from producers.simulation.labels import TaskStatus
from producers.simulation.people import Agent
from producers.simulation.rules import Candidate
from producers.simulation.situations import Situation
from producers.simulation.work import (
    PARTS,
    TICKS_PER_DAY,
    TICKS_PER_HOUR,
    Blocker,
    Task,
    hours_words,
    soon_words,
)
from producers.simulation.world import World

CAUSES = ("a missing licence", "a locked file", "a broken template", "an absent colleague")
OUTAGES = ("a server outage", "a network fault", "a power cut")
"""Causes that stop all of an agent's work."""
OUTAGE_CHANCE = 0.4
OUTSIDE_CAUSES = ("data from another team", "a late supplier", "an unsigned order")
"""Causes for tasks that depend on others."""
RIVAL_NAMES = ("A", "B", "C")
"""Tasks among which an agent chooses at most, by the names they have in the question: equal
choices are put in equal words, whatever the tasks are called."""
PLAN_FALLBACK = (
    '{"approach": "work as usual", "steps": ["do the work"], "tools_needed": [], '
    '"potential_blockers": [], "estimated_hours": 4}'
)


def competing_tasks(world: World, agent: Agent) -> Situation:
    """Several tasks want to be next; a client's sudden wish brings them where there are few."""
    competing = rivals(agent)
    for _ in range(2 - len(competing)):
        task = world.new_task(agent, world.fate)
        taken = [rival.part for rival in competing]
        task.part = world.fate.pick([part for part in PARTS if part not in taken])
        task.priority = "urgent"
        agent.queue.append(task)
        world.tally.client_changes += 1
        competing.append(task)
    competing.sort(key=lambda task: _rival_words(task, world.tick))
    candidates = [
        Candidate(name, task.priority, task.days_left(world.tick))
        for name, task in zip(RIVAL_NAMES, competing, strict=False)
    ]
    words = (f"{c.label}: {_rival_words(t, world.tick)}"
             for c, t in zip(candidates, competing, strict=True))  # fmt: skip
    return Situation(
        kind="task_prioritization",
        values={"tasks": "; ".join(words)},
        fallback=rules.task_prioritization(candidates),
        labels=tuple(candidate.label for candidate in candidates),
        tasks=tuple(competing),
    )


def rivals(agent: Agent) -> list[Task]:
    """Unblocked tasks with different parts, so that the part names them."""
    by_part: dict[str, Task] = {}
    at_hand = [agent.task] if agent.task is not None else []
    for task in at_hand + agent.queue:
        if task.blocker is None and not task.finished:
            by_part.setdefault(task.part, task)
    return list(by_part.values())[: len(RIVAL_NAMES)]


def _rival_words(task: Task, tick: int) -> str:
    return f"{task.priority}, due {soon_words(task.days_left(tick))}"


def message_due(world: World, agent: Agent) -> Situation:
    """Somebody must be told how things stand."""
    task = task_at_hand(world, agent)
    other = world.someone_else(agent, world.fate) or agent
    if task.blocker is not None:
        topic = f"ask for help, the {task.work} waits for {task.blocker.cause}"
    elif task.days_left(world.tick) < 0:
        topic = f"say that the {task.work} will be late"
    elif agent.under_review() is not None:
        topic = f"ask for the review of the {task.work}"
    else:
        topic = f"report that the {task.work} is {task.progress}"
    return Situation(
        kind="message_composition",
        values={"topic": topic},
        fallback=f"Please look at the {task.name} when you have a moment.",
        task=task,
        other=other,
    )


def blocker_strikes(world: World, agent: Agent) -> Situation:
    """The task at hand cannot go on."""
    dice, task = world.fate, task_at_hand(world, agent)
    wait = dice.between(1, 8) * TICKS_PER_HOUR // 2
    outage = dice.chance(OUTAGE_CHANCE)
    cause = dice.pick(OUTAGES if outage else OUTSIDE_CAUSES if task.dependencies else CAUSES)
    task.blocker = Blocker(cause, world.tick + wait, everything=outage)
    world.tally.blockers += 1
    workaround = dice.chance(0.45)
    return Situation(
        kind="blocker_resolution",
        values={
            "cause": cause,
            "wait": hours_words(wait),
            "workaround": "known" if workaround else "none",
        },
        fallback=rules.blocker_resolution(wait / TICKS_PER_HOUR, workaround),
        task=task,
    )


def plan_wanted(world: World, agent: Agent) -> Situation:
    """A task is big enough to be thought over first."""
    task = task_at_hand(world, agent)
    return Situation(
        kind="approach_selection",
        values={
            "size": task.size,
            "work": task.work,
            "tools": ", ".join(sorted({tool for _, tool in task.steps})),
        },
        fallback=PLAN_FALLBACK,
        task=task,
    )


def review_asked(world: World, agent: Agent) -> Situation:
    """A colleague's work is to be looked over; failing that, a supplier's."""
    owner = world.someone_else(agent, world.fate, lambda other: other.under_review() is not None)
    task = owner.under_review() if owner is not None else None
    if task is None:
        task = world.new_task(agent, world.fate)
        task.status = TaskStatus.IN_REVIEW
    return Situation(
        kind="quality_assessment",
        values={
            "serious": task.serious or "none",
            "small": task.defects or "none",
        },
        fallback=rules.quality_assessment(task.serious, task.defects),
        task=task,
    )


def delay_noticed(world: World, agent: Agent) -> Situation:
    """The task at hand turns out to be late; more so if it is already."""
    dice, task = world.fate, task_at_hand(world, agent)
    late = max(dice.below(4), -task.days_left(world.tick))
    task.due = min(task.due, world.tick - late * TICKS_PER_DAY + TICKS_PER_DAY - 1)
    client, lead_knows = dice.chance(0.5), dice.chance(0.3)
    return Situation(
        kind="escalation_decision",
        values={
            "late": f"{late} day{'' if late == 1 else 's'}" if late else "less than a day",
            "client": "waiting" if client else "not affected",
            "lead": "informed" if lead_knows else "not informed",
        },
        fallback=rules.escalation_decision(late, client, lead_knows),
        task=task,
    )


def task_at_hand(world: World, agent: Agent) -> Task:
    """The current task; without one, the next of the queue is begun, or one comes in."""
    if agent.task is None:
        agent.task = agent.queue.pop(0) if agent.queue else world.new_task(agent, world.fate)
    return agent.task
