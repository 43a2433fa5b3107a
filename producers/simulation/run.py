"""The simulation as its callers see it: observe a tick, have it decided, apply the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from config.catalog import Catalog
from config.errors import InputError
from producers.asking import Asker
from producers.simulation.apply import apply_answer
from producers.simulation.clock import begin_tick
from producers.simulation.deck import Fate
from producers.simulation.people import Agent
from producers.simulation.questions import Questions
from producers.simulation.situations import Situation, ordinary_situation
from producers.simulation.summary import Count, SimulationSummary
from producers.simulation.work import TICKS_PER_DAY
from producers.simulation.world import build_world
from routing.decision import ChoiceOutput, Decision, Preferences, Settled

ORDINARY = Preferences()


@dataclass(frozen=True)
class SimulationConfig:
    """What fixes a run: the same values and the same answers give the same run.

    ``days`` are of 32 ticks of a quarter of an hour. ``preferences`` go with every decision.
    """

    agents: int = 50
    days: int = 1
    seed: int = 7
    preferences: Preferences = ORDINARY

    def __post_init__(self) -> None:
        for name, least in (("agents", 1), ("days", 1), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} = {value}: a simulation needs at least {least}")

    @property
    def ticks(self) -> int:
        """Ticks of the whole run."""
        return self.days * TICKS_PER_DAY


@dataclass(frozen=True)
class TickReport:
    """What came of one tick, for whoever watches."""

    tick: int
    of: int
    decisions: tuple[Decision, ...]
    settled: tuple[Settled, ...]


@dataclass(frozen=True)
class _Asked:
    agent: Agent
    situation: Situation
    decision: Decision


class Simulation:
    """The company in lock-step: all agents see the same state, decide, and only then act.

    Ticks are counted from 0 over the whole run; ``observe`` and ``apply`` take turns.
    """

    def __init__(self, config: SimulationConfig, catalog: Catalog) -> None:
        """Raises: InputError when the catalog lacks one of the kinds that agents decide."""
        self.config = config
        self._world = build_world(config.agents, config.seed)
        self._fate = Fate(config.seed)
        self._questions = Questions(catalog, config.seed, config.preferences)
        self._count = Count()
        self._asked: list[_Asked] | None = None

    @property
    def tick(self) -> int:
        """The tick that is or will be observed next."""
        return self._world.tick

    @property
    def done(self) -> bool:
        """Whether all ticks have been applied."""
        return self.tick >= self.config.ticks

    @property
    def expected_decisions(self) -> int:
        """Decisions of the whole run: one for each agent and tick."""
        return self.config.agents * self.config.ticks

    def observe(self, tick: int) -> list[Decision]:
        """Bring the world to this tick; one decision for each agent, in a fixed order."""
        self._must_be(tick, observed=False)
        if self.done:
            raise InputError(f"tick {tick}: the run has only {self.config.ticks} ticks")
        world = self._world
        begin_tick(world)
        struck = self._fate.strike(world)
        self._asked = []
        for agent in world.agents:
            situation = struck.get(agent.index) or ordinary_situation(world, agent)
            decision = self._questions.decision(world, agent, situation)
            self._asked.append(_Asked(agent, situation, decision))
        return [asked.decision for asked in self._asked]

    def apply(self, tick: int, settled: Sequence[Settled]) -> None:
        """Let the answers take effect, in the order of the decisions, and end the tick."""
        self._must_be(tick, observed=True)
        answers = {s.key: s.answer for s in settled}
        for asked in self._asked or ():
            if asked.decision.key not in answers:
                raise InputError(f"tick {tick}: decision {asked.decision.key} was not settled")
        for asked in self._asked or ():
            answer = answers[asked.decision.key]
            self._count.add(asked.decision, answer)
            usable = _usable(asked.decision, answer)
            apply_answer(self._world, asked.agent, asked.situation, usable)
        self._asked = None
        self._world.tick += 1

    def summary(self) -> SimulationSummary:
        """What has come of the run so far."""
        return self._count.summary(self._world)

    def _must_be(self, tick: int, *, observed: bool) -> None:
        if tick != self.tick or (self._asked is not None) is not observed:
            turn = "apply" if self._asked is not None else "observe"
            raise InputError(f"tick {tick} is out of turn: next is {turn}({self.tick})")


def _usable(decision: Decision, answer: str) -> str:
    """The answer, or the fallback where it is none of the labels."""
    output = decision.output
    if isinstance(output, ChoiceOutput) and answer not in output.labels:
        return decision.fallback or output.labels[0]
    return answer


def run_simulation(
    simulation: Simulation,
    asker: Asker,
    on_tick: Callable[[TickReport], None] = lambda report: None,
) -> SimulationSummary:
    """Run all ticks that are left, asking each tick's decisions together.

    A run that stopped is taken up by running the same configuration anew against the same
    asker: what was settled comes back as it was, and the rest is asked.
    """
    while not simulation.done:
        tick = simulation.tick
        decisions = simulation.observe(tick)
        settled = asker.gather(decisions)
        simulation.apply(tick, settled)
        on_tick(TickReport(tick, simulation.config.ticks, tuple(decisions), tuple(settled)))
    return simulation.summary()
