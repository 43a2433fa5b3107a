"""Drives a Mesa 3 model by decisions: its agents ask, the tiers answer, the model steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from config.errors import InputError
from routing.decision import Decision, Settled


@runtime_checkable
class DecidingAgent(Protocol):
    """What an agent of the model has, beside being a ``mesa.Agent``, to be asked for decisions."""

    unique_id: int

    def decision(self, key: str) -> Decision | None:
        """What it has to decide in this step, under this key; ``None`` if nothing."""
        ...

    def decided(self, settled: Settled) -> None:
        """Take the answer."""
        ...


class MesaSteps:
    """A ``mesa.Model`` as :class:`producers.stepping.Steps`: one tick is one ``model.step()``.

    All agents see the model as it stands, decide, take their answers in the order of
    ``model.agents``, and only then the model steps. Agents without ``decision`` are never asked.
    The model ends after ``ticks`` steps, or when it sets ``running`` to false. For a run that can
    be repeated, resumed and replayed the model must be seeded.
    """

    def __init__(self, model: Any, ticks: int, *, name: str = "") -> None:
        """``name`` goes before all keys; models that share a run need different ones."""
        if ticks < 1:
            raise InputError(f"ticks = {ticks}: a model needs at least 1")
        self._model = model
        self._ticks = ticks
        self._name = name
        self._asked: list[tuple[DecidingAgent, Decision]] | None = None
        self.tick = 0

    @property
    def done(self) -> bool:
        """Whether the model has ended."""
        return self.tick >= self._ticks or not self._model.running

    def observe(self, tick: int) -> list[Decision]:
        """What the agents ask in this tick, in the order of ``model.agents``."""
        if tick != self.tick or self._asked is not None:
            raise InputError(f"tick {tick} is out of turn: the model is at {self.tick}")
        asked = []
        for agent in self._model.agents:
            if isinstance(agent, DecidingAgent):
                decision = agent.decision(f"{self._name}t{tick:05d}.{agent.unique_id}")
                if decision is not None:
                    asked.append((agent, decision))
        self._asked = asked
        return [decision for _, decision in asked]

    def apply(self, tick: int, settled: Sequence[Settled]) -> None:
        """Hand the answers out, and let the model step."""
        if tick != self.tick or self._asked is None:
            raise InputError(f"tick {tick} is out of turn: the model is at {self.tick}")
        answers = {one.key: one for one in settled}
        for agent, decision in self._asked:
            agent.decided(answers[decision.key])
        self._asked = None
        self.tick += 1
        self._model.step()
