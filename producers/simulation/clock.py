"""What time alone brings: the run of the day, deadlines, reviews that end, new assignments."""

from __future__ import annotations

from producers.simulation.labels import TaskStatus
from producers.simulation.people import Agent, AgentState
from producers.simulation.work import NEVER, TICKS_PER_DAY, Task
from producers.simulation.world import World

OFFER_CHANCES = (0.2, 0.16, 0.12, 0.08, 0.06, 0.04, 0.03, 0.03)
"""Of a new assignment in a tick, for an agent at its desk with so many tasks waiting."""
OFFER_CHANCE_IDLE = 0.6
QUESTION_CHANCE = 0.03
"""Of somebody asking an agent at its desk something, in a tick."""
GIVE_UP_CHANCE = 0.15
"""Of somebody who waits for an answer asking elsewhere, in a tick."""
OWN_SKILL_CHANCE = 0.38
"""Of an assignment being one for the agent's skills."""
SICK_CHANCE = 0.02
GATE_TICKS = 4
GATE_CHANCE = 0.7
"""Of a department's release gate being open, drawn anew every ``GATE_TICKS``."""


def begin_tick(world: World) -> None:
    """Bring the world to the start of its current tick."""
    if world.tick_of_day == 0:
        _plan_day(world)
    if world.tick_of_day % GATE_TICKS == 0:
        for department in world.leads:
            world.gates[department] = world.work.chance(GATE_CHANCE)
    for agent in world.agents:
        for task in (agent.task, *agent.queue):
            if task is not None:
                _age(world, agent, task)
        for task in agent.desk:
            if task.review_ends <= world.tick:
                _end_review(world, task)
        agent.state = _state(world, agent)
        world.tally.blocked_ticks += agent.state is AgentState.BLOCKED
        if not agent.away:
            _bring_news(world, agent)


def _plan_day(world: World) -> None:
    """Draw when each agent comes, goes, eats and meets."""
    dice = world.work
    meetings = {department: dice.between(4, 27) for department in world.leads}
    for agent in world.agents:
        day: list[AgentState | None] = [None] * TICKS_PER_DAY
        _mark(day, meetings[agent.role.department], 2, AgentState.IN_MEETING)
        if dice.chance(0.4):
            _mark(day, dice.between(3, 28), dice.between(1, 2), AgentState.IN_MEETING)
        _mark(day, dice.between(14, 18), 2, AgentState.ON_BREAK)
        _mark(day, dice.between(22, 26), 1, AgentState.ON_BREAK)
        sick = dice.chance(SICK_CHANCE)
        _mark(day, 0, TICKS_PER_DAY if sick else dice.below(2), AgentState.OFFLINE)
        leaves_early = dice.below(3)
        _mark(day, TICKS_PER_DAY - leaves_early, leaves_early, AgentState.OFFLINE)
        agent.day = tuple(day)


def _mark(day: list[AgentState | None], start: int, length: int, state: AgentState) -> None:
    for tick in range(start, start + length):
        day[tick] = state


def _age(world: World, agent: Agent, task: Task) -> None:
    """Lift a blocker whose time has come, and notice deadlines and promises that passed."""
    if task.blocker is not None and task.blocker.until <= world.tick:
        task.blocker = None
    if task.due == world.tick:
        world.tally.deadlines_missed += 1
        task.priority = "urgent"
        agent.ask()
    if task.promised <= world.tick:
        task.promised = NEVER
        world.tally.estimates_overrun += 1
        agent.ask()


def _end_review(world: World, task: Task) -> None:
    """A review that nobody finished within its 24 hours ends on what it has seen so far."""
    task.review_ends = NEVER
    if task.status is TaskStatus.IN_REVIEW and task.verdict is None:
        task.verdict = "errors found" if task.defects or task.serious else "passed"
        task.look_at = world.tick


def _state(world: World, agent: Agent) -> AgentState:
    planned = agent.day[world.tick_of_day]
    if planned is not None:
        return planned
    if agent.task is None:
        return AgentState.IDLE
    return AgentState.WORKING if agent.task.blocker is None else AgentState.BLOCKED


def _bring_news(world: World, agent: Agent) -> None:
    dice = world.work
    if dice.chance(QUESTION_CHANCE):
        agent.ask()
    elif agent.questions and dice.chance(GIVE_UP_CHANCE):
        agent.questions -= 1
    if agent.offer or agent.arrived or len(agent.queue) >= len(OFFER_CHANCES):
        return
    hungry = agent.task is None and not agent.queue
    if dice.chance(OFFER_CHANCE_IDLE if hungry else OFFER_CHANCES[len(agent.queue)]):
        agent.offer = world.new_task(agent, dice, own=dice.chance(OWN_SKILL_CHANCE))
