"""The whole of the simulated company at one moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from producers.simulation.dice import Dice
from producers.simulation.labels import TaskStatus
from producers.simulation.people import SKILLS, Agent, AgentState, hire
from producers.simulation.work import REVIEW_TICKS, TICKS_PER_DAY, Task, draw_task


@dataclass
class Tally:
    """What has happened so far; durations in ticks."""

    tasks_created: int = 0
    tasks_released: int = 0
    changes_requested: int = 0
    offers_rejected: int = 0
    refused_transitions: int = 0
    tools_completed: int = 0
    wrong_tools: int = 0
    deadlines_missed: int = 0
    estimates_overrun: int = 0
    client_changes: int = 0
    blockers: int = 0
    messages: int = 0
    plans: int = 0
    worked_ticks: int = 0
    blocked_ticks: int = 0
    idle_ticks: int = 0


@dataclass
class World:
    """Everybody, everything they work on, and the chance that drives the day.

    ``work`` draws tasks and the run of the day, ``fate`` what strikes whom: two streams, so that
    how often something strikes does not depend on what agents answer.
    """

    agents: list[Agent]
    work: Dice
    fate: Dice
    tick: int = 0
    tally: Tally = field(default_factory=Tally)
    gates: dict[str, bool] = field(default_factory=dict)
    """For each department whether work may be released now."""

    @property
    def tick_of_day(self) -> int:
        """0 to 31."""
        return self.tick % TICKS_PER_DAY

    @property
    def day(self) -> int:
        """The simulated day, from 0."""
        return self.tick // TICKS_PER_DAY

    def new_task(self, agent: Agent, dice: Dice, *, own: bool = True) -> Task:
        """A task that comes in for this agent, by one of its own skills or by any."""
        skill = dice.pick(agent.role.skills if own else SKILLS)
        self.tally.tasks_created += 1
        return draw_task(dice, self.tally.tasks_created, skill, self.tick)

    def lead_of(self, agent: Agent) -> Agent:
        """The first hired of the agent's department leads it."""
        return self.leads[agent.role.department]

    def someone_else(
        self, agent: Agent, dice: Dice, fits: Callable[[Agent], bool] = lambda _: True
    ) -> Agent | None:
        """The next agent that fits, round the house from a random one; ``None`` if none does."""
        start = dice.below(len(self.agents))
        for step in range(len(self.agents)):
            other = self.agents[(start + step) % len(self.agents)]
            if other is not agent and fits(other):
                return other
        return None

    def __post_init__(self) -> None:
        self.leads: dict[str, Agent] = {}
        for agent in self.agents:
            self.leads.setdefault(agent.role.department, agent)


def build_world(agents: int, seed: int, *, first: int = 0) -> World:
    """A team in the middle of its life: tasks under way, in review and about to be released.

    ``first`` is the index of its first agent in the company.
    """
    world = World(hire(agents, first), work=Dice(seed, "work"), fate=Dice(seed, "fate"))
    for agent in world.agents:
        _furnish(world, agent)
    return world


def _furnish(world: World, agent: Agent) -> None:
    dice = world.work
    agent.state = AgentState.OFFLINE
    agent.queue = [world.new_task(agent, dice) for _ in range(dice.between(0, 2))]
    if dice.chance(0.85):
        agent.task = world.new_task(agent, dice)
        _begin_midway(agent.task, dice)
    if dice.chance(0.7):
        _put_in_review(agent, world.new_task(agent, dice), dice)
    if dice.chance(0.4):
        task = world.new_task(agent, dice)
        task.spent, task.status = task.needed, TaskStatus.APPROVED
        task.look_at = dice.below(TICKS_PER_DAY)
        agent.desk.append(task)


def _begin_midway(task: Task, dice: Dice) -> None:
    task.spent = dice.below(task.needed)
    task.step = task.spent * len(task.steps) // task.needed
    task.tool = task.steps[task.step][1]
    task.estimate = task.needed


def _put_in_review(agent: Agent, task: Task, dice: Dice) -> None:
    task.spent, task.status = task.needed, TaskStatus.IN_REVIEW
    task.review_ends = dice.below(REVIEW_TICKS)
    agent.desk.append(task)
