"""What came of a run, counted from the simulation alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from producers.simulation.labels import TaskStatus
from producers.simulation.work import TICKS_PER_HOUR
from producers.simulation.world import World
from routing.decision import Decision


@dataclass(frozen=True)
class SimulationSummary:
    """The result of a run.

    ``by_kind`` holds (kind, decisions) by name. ``checked`` decisions had an answer that the
    rules hold to be right, ``matched`` of them were answered so, whoever answered.
    """

    agents: int
    ticks: int
    decisions: int
    by_kind: tuple[tuple[str, int], ...]
    checked: int
    matched: int
    tasks_created: int
    tasks_released: int
    tasks_in_review: int
    changes_requested: int
    offers_rejected: int
    transitions_refused: int
    tools_completed: int
    wrong_tools: int
    deadlines_missed: int
    estimates_overrun: int
    client_changes: int
    blockers: int
    messages: int
    plans: int
    worked_hours: float
    blocked_hours: float
    idle_hours: float
    state: str = ""
    """SHA-256 of the final state."""

    def to_json(self) -> str:
        """The summary as one JSON object, ``by_kind`` as an object of its own."""
        return json.dumps(asdict(self) | {"by_kind": dict(self.by_kind)})

    @property
    def accuracy(self) -> float | None:
        """Share of checked decisions answered as the rules hold right; ``None`` without any."""
        return self.matched / self.checked if self.checked else None


@dataclass
class Count:
    """Counts decisions while the run goes on."""

    decisions: int = 0
    checked: int = 0
    matched: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)

    def add(self, decision: Decision, answer: str) -> None:
        """Count one decision and its answer."""
        self.decisions += 1
        self.by_kind[decision.kind] += 1
        if decision.expected is not None:
            self.checked += 1
            self.matched += answer == decision.expected


def summed_up(worlds: Sequence[World], counts: Sequence[Count], state: str) -> SimulationSummary:
    """The result so far of teams that make up a company."""
    tally: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    for world, count in zip(worlds, counts, strict=True):
        tally.update(asdict(world.tally))
        by_kind.update(count.by_kind)
    return SimulationSummary(
        agents=sum(len(world.agents) for world in worlds),
        ticks=min(world.tick for world in worlds),
        decisions=sum(count.decisions for count in counts),
        by_kind=tuple(sorted(by_kind.items())),
        checked=sum(count.checked for count in counts),
        matched=sum(count.matched for count in counts),
        tasks_in_review=sum(_in_review(world) for world in worlds),
        transitions_refused=tally.pop("refused_transitions"),
        worked_hours=tally.pop("worked_ticks") / TICKS_PER_HOUR,
        blocked_hours=tally.pop("blocked_ticks") / TICKS_PER_HOUR,
        idle_hours=tally.pop("idle_ticks") / TICKS_PER_HOUR,
        state=state,
        **tally,
    )


def _in_review(world: World) -> int:
    return sum(task.status is TaskStatus.IN_REVIEW for agent in world.agents for task in agent.desk)
