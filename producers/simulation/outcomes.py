"""What the answers to incidents and crises (tiers 2 and 3) do to the world."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from producers.simulation.labels import Bargain, Conflict, Escalation, Quality, Unblock
from producers.simulation.people import Agent
from producers.simulation.situations import Situation
from producers.simulation.work import (
    NEVER,
    TICKS_PER_DAY,
    TICKS_PER_HOUR,
    Blocker,
    Task,
)
from producers.simulation.world import World

Effect = Callable[[World, Agent, Situation, str], None]

LONGEST_PLAN_HOURS = 40.0
FEW_WORDS = 3
"""A written answer shorter than this says nothing."""


def _begin_chosen(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    for name, task in zip(situation.labels or (), situation.tasks, strict=True):
        if name == answer and task in agent.queue:
            agent.take(task)


def _send(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    """A message makes a question for its reader; one that asks for help also gets some."""
    if not answer.strip():
        return
    world.tally.messages += 1
    if situation.other is not None:
        situation.other.ask()
    if situation.task is not None and situation.task.blocker is not None:
        situation.task.blocker.until -= TICKS_PER_HOUR // 2


def _unblock(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    task = situation.task
    if task is None or task.blocker is None:
        return
    if answer == Unblock.ESCALATE:
        world.lead_of(agent).ask()
        task.blocker.until = min(task.blocker.until, world.tick + TICKS_PER_HOUR)
    elif answer == Unblock.WORKAROUND:
        task.needed += TICKS_PER_HOUR // 2
        if situation.values["workaround"] == "known":
            task.blocker = None


def _plan(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    """A plan sets the estimate, and thinking in steps spares a mistake."""
    plan, task = _object(answer), situation.task
    hours = _hours(plan.get("estimated_hours"))
    if task is None or hours is None:
        return
    world.tally.plans += 1
    task.promise(max(1, round(hours * TICKS_PER_HOUR)), world.tick)
    if _steps(plan) > 1:
        task.defects = max(0, task.defects - 1)


def _review(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    task = situation.task
    if task is None or task.verdict is not None:
        return
    task.verdict = "passed" if answer == Quality.PASS else "errors found"
    task.look_at, task.review_ends = world.tick + 1, NEVER
    if answer == Quality.REDO:
        task.needed += TICKS_PER_HOUR


def _escalate(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    """The lead wants to know more; a manager moves the date, or asks why one was called."""
    if answer == Escalation.LEAD:
        world.lead_of(agent).ask()
    elif answer == Escalation.MANAGER:
        if situation.values["client"] == "waiting" and situation.task is not None:
            situation.task.due += TICKS_PER_DAY
        else:
            agent.ask()


def _settle_conflict(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    mine = situation.task
    theirs = situation.other.task if situation.other is not None else None
    if answer == Conflict.SHARE:
        for task in (mine, theirs):
            if task is not None:
                task.needed += 1
    else:
        _hold_up(world, theirs if answer == Conflict.INSIST else mine)


def _hold_up(world: World, task: Task | None) -> None:
    if task is not None and task.blocker is None:
        task.blocker = Blocker("a colleague who goes first", world.tick + TICKS_PER_HOUR)


def _bargain(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    task = situation.task
    if answer == Bargain.REFUSE or task is None:
        agent.ask()
        return
    task.needed += TICKS_PER_HOUR
    if answer == Bargain.COUNTER:
        task.due += TICKS_PER_DAY


def _solve(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    """An idea costs half an hour to try; having none costs an hour, and somebody asks."""
    if situation.task is None:
        return
    if len(answer.split()) >= FEW_WORDS:
        situation.task.needed += TICKS_PER_HOUR // 2
    else:
        situation.task.needed += TICKS_PER_HOUR
        agent.ask()


def _recover(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    """A plan of more than one step brings back half of what was lost."""
    task = situation.task
    if task is not None and _steps(_object(answer)) > 1:
        task.spent += min(task.spent // 2, max(0, task.needed - task.spent))


def _object(answer: str) -> dict[str, Any]:
    """The answer as a JSON object, empty if it is none."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _steps(plan: Mapping[str, Any]) -> int:
    steps = plan.get("steps")
    return len(steps) if isinstance(steps, list) else 0


def _hours(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared before converting: a whole number of JSON may be too large for a float.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(min(max(value, 0), LONGEST_PLAN_HOURS))


EFFECTS: Mapping[str, Effect] = {
    "task_prioritization": _begin_chosen,
    "message_composition": _send,
    "blocker_resolution": _unblock,
    "approach_selection": _plan,
    "quality_assessment": _review,
    "escalation_decision": _escalate,
    "conflict_resolution": _settle_conflict,
    "complex_negotiation": _bargain,
    "novel_problem": _solve,
    "creative_solution": _solve,
    "recovery_planning": _recover,
}
