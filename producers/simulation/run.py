"""The simulation as its callers see it: observe a tick, have it decided, apply the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config.catalog import Catalog
from config.errors import InputError
from producers.asking import Asker
from producers.simulation.dice import seed_of
from producers.simulation.questions import Questions
from producers.simulation.state import state_digest, state_json
from producers.simulation.summary import SimulationSummary, summed_up
from producers.simulation.team import Team
from producers.simulation.work import TICKS_PER_DAY
from producers.stepping import OnTick, nobody_watches, run_in_step
from routing.decision import Decision, Preferences, Settled

ORDINARY = Preferences()


@dataclass(frozen=True)
class SimulationConfig:
    """What fixes a run: the same values and the same answers give the same run.

    ``days`` are of 32 ticks of a quarter of an hour. ``preferences`` go with every decision.
    ``teams`` divide the agents into groups of which none ever meets another.
    """

    agents: int = 50
    days: int = 1
    seed: int = 7
    preferences: Preferences = ORDINARY
    teams: int = 1

    def __post_init__(self) -> None:
        for name, least in (("agents", 1), ("days", 1), ("seed", 0), ("teams", 1)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} = {value}: a simulation needs at least {least}")
        if self.teams > self.agents:
            raise InputError(
                f"teams = {self.teams}: there are only {self.agents} agents, and no team is empty"
            )

    @property
    def ticks(self) -> int:
        """Ticks of the whole run."""
        return self.days * TICKS_PER_DAY


class Simulation:
    """The company in lock-step: all teams live the same tick.

    Ticks are counted from 0 over the whole run; ``observe`` and ``apply`` take turns.
    """

    def __init__(self, config: SimulationConfig, catalog: Catalog) -> None:
        """Raises: InputError when the catalog lacks one of the kinds that agents decide."""
        self.config = config
        questions = Questions(catalog, config.seed, config.preferences)
        self.teams = tuple(_teams(config, questions))

    @property
    def tick(self) -> int:
        """The tick that is or will be observed next by whoever is behind all others."""
        return min(team.tick for team in self.teams)

    @property
    def done(self) -> bool:
        """Whether all ticks have been applied."""
        return all(team.done for team in self.teams)

    @property
    def expected_decisions(self) -> int:
        """Decisions of the whole run: one for each agent and tick."""
        return self.config.agents * self.config.ticks

    def observe(self, tick: int) -> list[Decision]:
        """Bring the world to this tick; one decision for each agent, in a fixed order."""
        return [decision for team in self.teams for decision in team.observe(tick)]

    def apply(self, tick: int, settled: Sequence[Settled]) -> None:
        """Let the answers take effect, in the order of the decisions, and end the tick."""
        for team in self.teams:
            team.apply(tick, settled)

    def summary(self) -> SimulationSummary:
        """What has come of the run so far."""
        worlds = [team.world for team in self.teams]
        counts = [team.count for team in self.teams]
        return summed_up(worlds, counts, state_digest(worlds))

    def state(self) -> str:
        """Everything there is, as canonical JSON: equal runs give equal text."""
        return state_json([team.world for team in self.teams])


def run_simulation(
    simulation: Simulation, asker: Asker, on_tick: OnTick = nobody_watches
) -> SimulationSummary:
    """Run all ticks that are left, asking each tick's decisions together.

    A run that stopped is taken up by running the same configuration anew against the same
    asker: what was settled comes back as it was, and the rest is asked.
    """
    run_in_step(simulation, asker, on_tick)
    return simulation.summary()


def _teams(config: SimulationConfig, questions: Questions) -> list[Team]:
    size, larger = divmod(config.agents, config.teams)
    teams, first = [], 0
    for number in range(config.teams):
        agents = size + (number < larger)
        seed = config.seed if config.teams == 1 else seed_of(config.seed, f"team.{number}")
        teams.append(Team(agents, config.ticks, seed, questions, first=first))
        first += agents
    return teams
