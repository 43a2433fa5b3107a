"""A team of agents in lock-step: all see the same state, decide, and only then act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config.errors import InputError
from producers.simulation.apply import apply_answer
from producers.simulation.clock import begin_tick
from producers.simulation.deck import Fate
from producers.simulation.people import Agent
from producers.simulation.questions import Questions
from producers.simulation.situations import Situation, ordinary_situation
from producers.simulation.summary import Count
from producers.simulation.world import World, build_world
from routing.decision import ChoiceOutput, Decision, Settled


@dataclass(frozen=True)
class _Asked:
    agent: Agent
    situation: Situation
    decision: Decision


class Team:
    """Agents that meet one another and nobody else.

    Ticks are counted from 0 over the whole run; ``observe`` and ``apply`` take turns.
    """

    def __init__(
        self, agents: int, ticks: int, seed: int, questions: Questions, *, first: int = 0
    ) -> None:
        """``first`` is the index of its first agent in the company."""
        self.world: World = build_world(agents, seed, first=first)
        self.count = Count()
        self._ticks = ticks
        self._fate = Fate(seed)
        self._questions = questions
        self._asked: list[_Asked] | None = None

    @property
    def tick(self) -> int:
        """The tick that is or will be observed next."""
        return self.world.tick

    @property
    def done(self) -> bool:
        """Whether all ticks have been applied."""
        return self.tick >= self._ticks

    def observe(self, tick: int) -> list[Decision]:
        """Bring the world to this tick; one decision for each agent, in a fixed order."""
        self._must_be(tick, observed=False)
        if self.done:
            raise InputError(f"tick {tick}: the run has only {self._ticks} ticks")
        world = self.world
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
            self.count.add(asked.decision, answer)
            usable = _usable(asked.decision, answer)
            apply_answer(self.world, asked.agent, asked.situation, usable)
        self._asked = None
        self.world.tick += 1

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
