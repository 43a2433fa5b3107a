"""What an answer does to the world; any text will do, and a useless one means the fallback."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from producers.simulation import outcomes
from producers.simulation.labels import Action, Estimate, Position, Reply, TaskStatus, Tool
from producers.simulation.outcomes import Effect
from producers.simulation.people import Agent
from producers.simulation.situations import Situation
from producers.simulation.work import NEVER, REVIEW_TICKS, TICKS_PER_HOUR, Task
from producers.simulation.world import World

LOOK_AGAIN_TICKS = 8
"""Until an agent is asked once more about a task that stayed where it was."""
OPEN_ITEM_CHANCE = 0.2
"""Of something being forgotten in work that was thought complete."""
OPEN_ITEM_TICKS = 1
"""Work that an open item or a defect takes."""

_MOVES: Mapping[TaskStatus, tuple[TaskStatus, ...]] = {
    TaskStatus.DRAFT: (TaskStatus.IN_REVIEW,),
    TaskStatus.IN_REVIEW: (TaskStatus.CHANGES, TaskStatus.APPROVED),
    TaskStatus.CHANGES: (TaskStatus.IN_REVIEW,),
    TaskStatus.APPROVED: (TaskStatus.RELEASED,),
}
"""The workflow: whatever else an agent wants is refused."""


def apply_answer(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    """Let the answer of one agent take effect; for a choice it is a label by now.

    Only a next action fills the quarter of an hour; after any other decision, work goes on.
    """
    _EFFECTS[situation.kind](world, agent, situation, answer)
    if situation.kind != "next_action":
        _go_on(world, agent)


def _act(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    if agent.away:
        return
    _ACTIONS[Action(answer)](world, agent)


def _go_on(world: World, agent: Agent) -> None:
    """A quarter of an hour of work; a tool completes when its step is done."""
    task = agent.task
    if agent.away or task is None or task.blocker is not None or task.tool is None:
        return
    world.tally.worked_ticks += 1
    task.spent += 1
    last = len(task.steps) - 1
    if task.step <= last and task.spent * (last + 1) >= (task.step + 1) * task.needed:
        world.tally.tools_completed += 1
        task.step += 1
        if task.step <= last:
            task.tool = None


def _complete(world: World, agent: Agent) -> None:
    """The task leaves the bench; what is unfinished or forgotten shows as open items."""
    task = agent.task
    if task is None:
        return
    task.open_items = 0 if task.finished else 2
    if world.work.chance(OPEN_ITEM_CHANCE):
        task.open_items += 1
    agent.hand_in(world.tick + 1)


def _switch(world: World, agent: Agent) -> None:
    ready = agent.ready
    if ready:
        agent.take(ready[0])


def _report_blocked(world: World, agent: Agent) -> None:
    """A blocker that is known of goes away a little sooner."""
    if agent.task is not None and agent.task.blocker is not None:
        agent.task.blocker.until -= 1


def _communicate(world: World, agent: Agent) -> None:
    agent.questions = max(0, agent.questions - 1)


def _idle(world: World, agent: Agent) -> None:
    world.tally.idle_ticks += 1


_ACTIONS: Mapping[Action, Callable[[World, Agent], None]] = {
    Action.CONTINUE: _go_on,
    Action.COMPLETE: _complete,
    Action.SWITCH: _switch,
    Action.BLOCKED: _report_blocked,
    Action.COMMUNICATE: _communicate,
    Action.IDLE: _idle,
}


def _reply(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    task, agent.offer = agent.offer, None
    if task is None or answer == Reply.REJECT:
        world.tally.offers_rejected += 1
    elif agent.queue:
        agent.arrived = task
    else:
        agent.queue.append(task)


def _place(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    task, agent.arrived = agent.arrived, None
    if task is not None:
        length = len(agent.queue)
        places = {Position.FIRST: 0, Position.MIDDLE: (length + 1) // 2, Position.LAST: length}
        agent.queue.insert(places[Position(answer)], task)


def _estimate(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    if situation.task is not None:
        situation.task.promise(Estimate(answer).hours * TICKS_PER_HOUR, world.tick)


def _equip(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    """The wrong tool does the step as well, but it takes half an hour more."""
    task = situation.task
    if task is not None:
        task.tool = Tool(answer)
        if task.tool is not task.steps[task.step][1]:
            world.tally.wrong_tools += 1
            task.needed += TICKS_PER_HOUR // 2


def _move(world: World, agent: Agent, situation: Situation, answer: str) -> None:
    """Move a task on the desk along the workflow, or leave it where it is."""
    task, status = situation.task, TaskStatus(answer)
    if task is None:
        return
    task.look_at = world.tick + LOOK_AGAIN_TICKS
    if status is task.status:
        if task.open_items:
            _back_to_work(agent, task, task.open_items)
    elif status not in _MOVES[task.status]:
        world.tally.refused_transitions += 1
    else:
        task.status = status
        _ENTER[status](world, agent, task)


def _enter_review(world: World, agent: Agent, task: Task) -> None:
    """For 24 hours somebody may look at it; what was left open counts as a defect."""
    task.defects, task.open_items = task.defects + task.open_items, 0
    task.verdict = None
    task.look_at = NEVER
    task.review_ends = world.tick + REVIEW_TICKS


def _enter_changes(world: World, agent: Agent, task: Task) -> None:
    world.tally.changes_requested += 1
    _back_to_work(agent, task, 1 + task.defects + task.serious)
    task.defects, task.serious = 0, 0


def _enter_approved(world: World, agent: Agent, task: Task) -> None:
    task.look_at = world.tick + 1


def _enter_released(world: World, agent: Agent, task: Task) -> None:
    world.tally.tasks_released += 1
    agent.desk.remove(task)


_ENTER: Mapping[TaskStatus, Callable[[World, Agent, Task], None]] = {
    TaskStatus.IN_REVIEW: _enter_review,
    TaskStatus.CHANGES: _enter_changes,
    TaskStatus.APPROVED: _enter_approved,
    TaskStatus.RELEASED: _enter_released,
}


def _back_to_work(agent: Agent, task: Task, items: int) -> None:
    task.needed = max(task.needed, task.spent) + items * OPEN_ITEM_TICKS
    task.open_items = 0
    task.look_at = NEVER
    agent.desk.remove(task)
    agent.queue.insert(0, task)


_EFFECTS: Mapping[str, Effect] = {
    "next_action": _act,
    "accept_reject": _reply,
    "queue_position": _place,
    "time_estimate": _estimate,
    "tool_selection": _equip,
    "task_transition": _move,
    **outcomes.EFFECTS,
}

KINDS: tuple[str, ...] = tuple(_EFFECTS)
"""All that agents decide."""
