"""Teams that live in step or freely come to the same end, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from config.catalog import Catalog
from config.errors import InputError
from config.load import KINDS, read_toml
from producers.simulation.run import Simulation, SimulationConfig
from producers.stepping import TickReport, run_freely, run_in_step
from routing.decision import Decision, Settled, Status
from tests.unit.catalogs import catalog

SHAPE = SimulationConfig(agents=12, days=1, seed=3, teams=4)


@pytest.fixture(scope="module")
def eddt() -> Catalog:
    data = read_toml(KINDS / "eddt.toml")
    return catalog(kinds=data["kinds"], routing=data["routing"])


class Shuffled:
    """Answers by the question alone, and settles in an order of chance."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.open: dict[str, Decision] = {}
        self.submissions: list[list[str]] = []

    def submit(self, decisions: Sequence[Decision]) -> list[str]:
        self.submissions.append([decision.key for decision in decisions])
        self.open.update((decision.key, decision) for decision in decisions)
        return [decision.key for decision in decisions]

    def wait_some(self, ids: Sequence[str]) -> list[Settled]:
        some = self.dice.sample(sorted(ids), self.dice.randint(1, len(ids)))
        return [answered(self.open.pop(one)) for one in some]

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        return [answered(decision) for decision in decisions]


def answered(decision: Decision) -> Settled:
    labels = getattr(decision.output, "labels", ("As you like.",))
    answer = decision.expected or labels[decision.seed % len(labels)]
    return Settled(id=decision.key, key=decision.key, kind=decision.kind,
                   status=Status.ACCEPTED, answer=answer)  # fmt: skip


def test_free_teams_end_as_teams_in_step(eddt: Catalog) -> None:
    in_step = Simulation(SHAPE, eddt)
    run_in_step(in_step, Shuffled(0))
    for seed, lead in ((1, 0), (2, 3), (3, 1000)):
        free = Simulation(SHAPE, eddt)
        run_freely(free.teams, Shuffled(seed), lead=lead)
        assert free.done
        assert free.state() == in_step.state()
        assert free.summary() == in_step.summary()


def test_a_free_part_is_given_its_answers_in_the_order_in_which_it_asked(eddt: Catalog) -> None:
    def watch(report: TickReport) -> None:
        assert [one.key for one in report.settled] == [one.key for one in report.decisions]

    run_freely(Simulation(SHAPE, eddt).teams, Shuffled(5), lead=1, on_tick=watch)


def test_nobody_gets_further_ahead_than_the_lead(eddt: Catalog) -> None:
    simulation, lead = Simulation(SHAPE, eddt), 2
    ticks: dict[str, int] = {}

    def watch(report: TickReport) -> None:
        # Whoever has just ended a tick began it with nobody more than the lead behind it.
        ticks[report.decisions[0].key] = report.tick
        behind = min(team.tick for team in simulation.teams)
        assert report.tick <= behind + lead

    run_freely(simulation.teams, Shuffled(4), lead=lead, on_tick=watch)
    assert len(ticks) == 4 * SHAPE.ticks


def test_the_earliest_in_simulated_time_asks_first(eddt: Catalog) -> None:
    asker = Shuffled(5)
    run_freely(Simulation(SHAPE, eddt).teams, asker, lead=8)
    # Keys begin with day and tick.
    for keys in asker.submissions:
        assert [key[:8] for key in keys] == sorted(key[:8] for key in keys)


def test_one_team_is_the_company_as_it_was(eddt: Catalog) -> None:
    alone = Simulation(SimulationConfig(agents=12, seed=3), eddt)
    run_in_step(alone, Shuffled(0))
    free = Simulation(SimulationConfig(agents=12, seed=3), eddt)
    run_freely(free.teams, Shuffled(1), lead=0)
    assert free.state() == alone.state()


def test_teams_never_share_an_agent_or_their_chances(eddt: Catalog) -> None:
    teams = Simulation(SimulationConfig(agents=11, seed=3, teams=3), eddt).teams
    ids = [agent.id for team in teams for agent in team.world.agents]
    assert [len(team.world.agents) for team in teams] == [4, 4, 3]
    assert len(set(ids)) == 11
    assert len({team.world.work.random.random() for team in teams}) == 3


@pytest.mark.parametrize(("teams", "message"), [(0, "teams = 0"), (13, "only 12 agents")])
def test_teams_must_be_possible(teams: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SimulationConfig(agents=12, teams=teams)
