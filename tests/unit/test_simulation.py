"""The simulated company: its decisions, their mix, and that the same seed gives the same run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from config.catalog import Catalog
from config.errors import InputError
from config.load import KINDS, read_toml
from producers.simulation.apply import KINDS as ASKED
from producers.simulation.labels import CLOSED_SETS
from producers.simulation.run import (
    Simulation,
    SimulationConfig,
    run_simulation,
)
from producers.simulation.summary import SimulationSummary
from producers.stepping import TickReport
from routing.decision import ChoiceOutput, Decision, Settled, Status
from tests.unit.catalogs import catalog

Answer = Callable[[Decision], str]
TIER_1 = {"next_action", "task_transition", "tool_selection", "time_estimate", "accept_reject",
          "queue_position"}  # fmt: skip
GARBAGE = ("", " ", "\x00\ud83d", "[" * 5000, "{}", "null", "1e999", "no label at all\n" * 50,
           '{"steps": 3, "estimated_hours": "soon"}', '{"estimated_hours": NaN, "steps": []}',
           '{"estimated_hours": ' + "9" * 400 + ', "steps": [1, 2]}')  # fmt: skip
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def eddt() -> Catalog:
    """The kinds and rules of the simulation over made-up lanes."""
    data = read_toml(KINDS / "eddt.toml")
    return catalog(kinds=data["kinds"], routing=data["routing"])


class Answerer:
    """Stands for the client: answers in its own way and remembers what it has settled."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.settled: dict[str, Settled] = {}
        self.asked: list[Decision] = []
        self.fresh = 0

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        self.asked.extend(decisions)
        return [self._settle(decision) for decision in decisions]

    def _settle(self, decision: Decision) -> Settled:
        if decision.key not in self.settled:
            self.fresh += 1
            self.settled[decision.key] = Settled(
                id=str(self.fresh), key=decision.key, kind=decision.kind,
                status=Status.ACCEPTED, answer=self.answer(decision),
            )  # fmt: skip
        return self.settled[decision.key]


def by_rule(decision: Decision) -> str:
    return decision.expected or decision.fallback or ""


def at_random(decision: Decision) -> str:
    """A label by the toss of a coin that depends on the key alone."""
    toss = random.Random(int.from_bytes(blake2b(decision.key.encode()).digest()))
    if isinstance(decision.output, ChoiceOutput):
        return toss.choice(decision.output.labels)
    return toss.choice(("", "a few plain words", '{"steps": ["a", "b"], "estimated_hours": 2}'))


def as_garbage(decision: Decision) -> str:
    return GARBAGE[int.from_bytes(blake2b(decision.key.encode()).digest()) % len(GARBAGE)]


ANSWERS = pytest.mark.parametrize("answer", [by_rule, at_random, as_garbage])


def played(
    eddt: Catalog, answer: Answer = by_rule, agents: int = 50, days: int = 1, seed: int = 7
) -> tuple[list[Decision], SimulationSummary]:
    asker = Answerer(answer)
    config = SimulationConfig(agents=agents, days=days, seed=seed)
    summary = run_simulation(Simulation(config, eddt), asker)
    return asker.asked, summary


@ANSWERS
def test_the_same_seed_and_answers_give_the_same_run(eddt: Catalog, answer: Answer) -> None:
    assert played(eddt, answer, days=2) == played(eddt, answer, days=2)


def test_another_seed_gives_another_run(eddt: Catalog) -> None:
    assert played(eddt, seed=1)[0] != played(eddt, seed=2)[0]


def test_a_run_does_not_hang_on_the_order_of_hashes() -> None:
    code = (
        "from hashlib import blake2b\n"
        "from tests.unit.test_simulation import KINDS, at_random, catalog, played, read_toml\n"
        "data = read_toml(KINDS / 'eddt.toml')\n"
        "eddt = catalog(kinds=data['kinds'], routing=data['routing'])\n"
        "asked, summary = played(eddt, at_random, agents=12)\n"
        "print(blake2b(repr([asked, summary]).encode()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1


@ANSWERS
@pytest.mark.parametrize("seed", [1, 2, 3, 7, 11])
def test_the_mix_of_tiers_is_the_scenarios_whatever_is_answered(
    eddt: Catalog, answer: Answer, seed: int
) -> None:
    asked, _ = played(eddt, answer, seed=seed)
    tiers = Counter(eddt.kinds[decision.kind].tier for decision in asked)
    assert len(asked) == 1600
    assert tiers["local_fast"] / 16 == pytest.approx(83, abs=4)
    assert tiers["local_quality"] / 16 == pytest.approx(15, abs=4)
    assert tiers["cloud"] / 16 == pytest.approx(2, abs=1.5)


@pytest.mark.parametrize("answer", [by_rule, at_random])
@pytest.mark.parametrize("seed", [1, 2, 3, 7, 11])
def test_every_kind_arises_in_a_day_of_fifty_agents(
    eddt: Catalog, answer: Answer, seed: int
) -> None:
    _, summary = played(eddt, answer, seed=seed)
    assert {kind for kind, _ in summary.by_kind} == set(ASKED)
    assert len(ASKED) == 17


def test_written_answers_are_few(eddt: Catalog) -> None:
    _, summary = played(eddt)
    counts = dict(summary.by_kind)
    texts = sum(
        counts[kind] for kind in ("message_composition", "novel_problem", "creative_solution")
    )
    assert texts / summary.decisions < 0.04
    assert counts["approach_selection"] / summary.decisions < 0.007


@ANSWERS
def test_every_agent_decides_once_a_tick_under_its_own_key(eddt: Catalog, answer: Answer) -> None:
    asked, summary = played(eddt, answer, agents=12, days=2)
    assert summary.decisions == len(asked) == 12 * 64
    assert len({decision.key for decision in asked}) == len(asked)
    assert asked[0].key == "d000.t00.designer-001.0"
    assert asked[-1].key == "d001.t31.analyst-012.0"
    assert asked[-1].agent_id == "analyst-012"
    assert asked[-1].day == 1


@ANSWERS
def test_expected_and_fallback_are_answers_that_the_decision_allows(
    eddt: Catalog, answer: Answer
) -> None:
    asked, _ = played(eddt, answer)
    for decision in asked:
        assert (decision.expected is not None) is (decision.kind in TIER_1)
        assert decision.fallback
        if isinstance(decision.output, ChoiceOutput):
            assert decision.fallback in decision.output.labels
            assert decision.expected is None or decision.expected in decision.output.labels


def test_no_label_is_right_so_often_that_always_saying_it_would_do(eddt: Catalog) -> None:
    right: dict[str, Counter[str]] = {kind: Counter() for kind in TIER_1}
    for seed in (1, 2, 3, 7):
        for decision in played(eddt, seed=seed)[0]:
            if decision.expected is not None:
                right[decision.kind][decision.expected] += 1
    for kind, labels in right.items():
        assert max(labels.values()) <= 0.6 * labels.total(), kind
        assert set(labels) == set(CLOSED_SETS[kind]), kind


def test_signals_that_force_the_top_tier_come_only_with_its_own_kinds(eddt: Catalog) -> None:
    for decision in played(eddt, at_random)[0]:
        signals = decision.signals
        forced = signals.creativity or (signals.multi_agent and signals.novel)
        top = eddt.kinds[decision.kind].tier == "cloud"
        assert top or not (forced or signals.multi_agent or signals.novel)


def test_the_seed_of_a_decision_follows_from_the_runs_seed_and_the_key(eddt: Catalog) -> None:
    once, again = played(eddt, agents=3)[0], played(eddt, agents=3)[0]
    other = played(eddt, agents=3, seed=8)[0]
    assert [d.seed for d in once] == [d.seed for d in again]
    assert [d.seed for d in once] != [d.seed for d in other]
    assert all(0 <= d.seed < 1 << 31 for d in once)


@pytest.mark.parametrize("stopped_after", [1, 17, 40])
def test_a_resumed_run_asks_only_what_is_not_settled(eddt: Catalog, stopped_after: int) -> None:
    config = SimulationConfig(agents=12, days=2, seed=5)
    whole = Answerer(at_random)
    summary = run_simulation(Simulation(config, eddt), whole)

    asker = Answerer(at_random)
    first = Simulation(config, eddt)
    for tick in range(stopped_after):
        first.apply(tick, asker.gather(first.observe(tick)))
    before = asker.fresh
    asker.asked.clear()
    assert run_simulation(Simulation(config, eddt), asker) == summary
    assert asker.asked == whole.asked
    assert before == 12 * stopped_after
    assert asker.fresh == len(whole.asked)


def test_only_the_answer_of_a_settlement_matters(eddt: Catalog) -> None:
    class Fickle(Answerer):
        def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
            changed = [
                settled.model_copy(update={"status": Status.DEAD, "cost_micros": 9, "lane": "x"})
                for settled in super().gather(decisions)
            ]
            return changed[::-1]

    config = SimulationConfig(agents=12, seed=5)
    plain = run_simulation(Simulation(config, eddt), Answerer(at_random))
    assert run_simulation(Simulation(config, eddt), Fickle(at_random)) == plain


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_never_stops_the_company(eddt: Catalog, garbage: str) -> None:
    _, summary = played(eddt, lambda _: garbage, agents=10, days=3)
    assert summary.decisions == 960


@pytest.mark.parametrize("label", ["COMPLETE", "accept", "first", "SWITCH", "changes requested"])
def test_one_answer_to_everything_keeps_queues_bounded(eddt: Catalog, label: str) -> None:
    asked, _ = played(eddt, lambda _: label, agents=10, days=10)
    assert max(decision.signals.queue_length for decision in asked) < 40


def test_working_by_the_rules_gets_more_released_than_chance(eddt: Catalog) -> None:
    ruled, tossed = played(eddt, by_rule, days=5)[1], played(eddt, at_random, days=5)[1]
    assert ruled.tasks_released > 1.5 * tossed.tasks_released
    assert ruled.accuracy == 1
    assert ruled.transitions_refused == ruled.wrong_tools == 0
    assert tossed.accuracy is not None
    assert tossed.accuracy < 0.5


def test_a_single_agent_gets_through_its_days(eddt: Catalog) -> None:
    _, summary = played(eddt, at_random, agents=1, days=10)
    assert summary.decisions == 320


def test_ticks_are_observed_and_applied_in_turn(eddt: Catalog) -> None:
    simulation = Simulation(SimulationConfig(agents=2), eddt)
    with pytest.raises(InputError, match=r"next is observe\(0\)"):
        simulation.apply(0, [])
    simulation.observe(0)
    with pytest.raises(InputError, match=r"next is apply\(0\)"):
        simulation.observe(1)
    with pytest.raises(InputError, match="was not settled"):
        simulation.apply(0, [])


def test_a_run_reports_each_tick_and_ends(eddt: Catalog) -> None:
    reports: list[TickReport] = []
    simulation = Simulation(SimulationConfig(agents=2), eddt)
    run_simulation(simulation, Answerer(by_rule), reports.append)
    assert [report.tick for report in reports] == list(range(32))
    assert all(len(report.decisions) == len(report.settled) == 2 for report in reports)
    assert simulation.done
    assert simulation.expected_decisions == 64
    with pytest.raises(InputError, match="only 32 ticks"):
        simulation.observe(32)


@pytest.mark.parametrize(("name", "value"), [("agents", 0), ("days", 0), ("seed", -1)])
def test_a_wrong_configuration_is_named(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} = {value}"):
        wrong: dict[str, Any] = {name: value}
        SimulationConfig(**wrong)


def test_a_catalog_without_the_kinds_is_refused(eddt: Catalog) -> None:
    kinds = {name: kind for name, kind in eddt.kinds.items() if name != "next_action"}
    with pytest.raises(InputError, match='include = \\["eddt"\\]'):
        Simulation(SimulationConfig(), eddt.model_copy(update={"kinds": kinds}))


def test_a_catalog_with_other_labels_is_refused(eddt: Catalog) -> None:
    changed = eddt.kinds["accept_reject"].model_copy(update={"labels": ("yes", "no")})
    kinds = {**eddt.kinds, "accept_reject": changed}
    with pytest.raises(InputError, match="must offer the labels accept, reject"):
        Simulation(SimulationConfig(), eddt.model_copy(update={"kinds": kinds}))


def test_the_summary_reads_as_json(eddt: Catalog) -> None:
    summary = played(eddt, agents=2)[1]
    assert '"decisions": 64' in summary.to_json()
