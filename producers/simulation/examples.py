"""Typical questions of each kind: a simulated day that nobody has to answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from config.catalog import Catalog
from producers.simulation.run import Simulation, SimulationConfig, run_simulation
from routing.decision import Decision, Settled, Status


def example_decisions(
    catalog: Catalog, *, agents: int = 50, days: int = 1, seed: int = 7
) -> dict[str, list[Decision]]:
    """The decisions of a run that goes by the simulation's own rules, by kind.

    Raises:
        InputError: the catalog's kinds are not those of the simulation.
    """
    asked: dict[str, list[Decision]] = defaultdict(list)

    class ByRule:
        """Answers what the rules hold to be right, else what the asker would fall back on."""

        def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
            for decision in decisions:
                asked[decision.kind].append(decision)
            return [_settled(decision) for decision in decisions]

    simulation = Simulation(SimulationConfig(agents=agents, days=days, seed=seed), catalog)
    run_simulation(simulation, ByRule())
    return dict(asked)


def _settled(decision: Decision) -> Settled:
    return Settled(
        id=decision.key,
        key=decision.key,
        kind=decision.kind,
        status=Status.ACCEPTED,
        answer=decision.expected or decision.fallback or "",
    )
