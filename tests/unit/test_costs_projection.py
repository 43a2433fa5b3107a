"""Projections: the daemon's and EDDT's figures to the cent, and what own mixes come to."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.costs_workloads import Wish, workloads_of
from config.errors import UptierError
from config.load import load_catalog
from config.workloads import Tokens, Workload, load_workload, workload_names
from ledger.usage import Place
from producers.costs import project
from producers.costs_ladder import Ladder, ladder_of, price_of, references_of
from producers.costs_projection import Periods, Projection

SWARM = load_catalog("swarm")
LAPTOP = load_catalog("laptop")
CENT = Decimal("0.01")


def cents(amount: Decimal) -> str:
    return str(amount.quantize(CENT, ROUND_HALF_UP))


def projected(name: str, ladder: Ladder | None = None, *named: str) -> Projection:
    ladder = ladder or ladder_of(SWARM)
    one = load_workload(name)
    return project(one, ladder, references_of(ladder.catalog, named, one.references))


@pytest.mark.parametrize(
    ("name", "alone", "tiers", "saved", "tokens"),
    [
        ("light", "3.26", "0.42", "87", 36_200),
        ("medium", "14.22", "1.99", "86", 158_000),
        ("heavy", "39.83", "10.11", "75", 442_500),
    ],
)
def test_the_daemons_thirty_days_at_three_dollars_a_million(
    name: str, alone: str, tiers: str, saved: str, tokens: int
) -> None:
    found = projected(name)
    [reference] = found.references
    assert price_of(SWARM, reference.model).input == 3
    assert cents(reference.cost.total) == cents(reference.cost.monthly) == alone
    assert cents(found.cost.total) == tiers
    assert reference.savings_share is not None
    assert f"{100 * reference.savings_share:.0f}" == saved
    assert sum(one.calls * (one.tokens_in + one.tokens_out) for one in found.asked) == tokens
    assert found.cost.daily == found.routed.daily + found.fallback.daily


def test_only_what_changes_the_system_is_routed_to_the_api_and_a_twentieth_falls_back() -> None:
    found = projected("heavy")
    assert {one.name for one in found.asked if one.place is Place.API} == {"spawn_daemon", "exec"}
    routed, local = Decimal(95_000), Decimal(442_500 - 95_000)
    assert found.routed.daily == routed * 3 / 1_000_000
    assert found.fallback.daily == local * 3 / 1_000_000 / 20


@pytest.mark.parametrize(
    ("name", "calls"),
    [("light", (20, 17, 13)), ("medium", (60, 90, 50)), ("heavy", (100, 250, 150))],
)
def test_the_stated_distribution_stands_beside_the_one_of_the_mix(
    name: str, calls: tuple[int, ...]
) -> None:
    found = projected(name)
    assert tuple(found.expected) == ("local_fast", "local_quality", "cloud")
    assert tuple(use.calls for use in found.expected.values()) == calls
    assert sum(calls) == found.iterations
    assert sum(use.share for use in found.tiers.values()) == 1
    assert found.tiers["cloud"].share < found.expected["cloud"].share


def test_whole_calls_lose_some_and_it_is_said() -> None:
    light = projected("light")
    assert (light.calls, light.iterations) == (48, 50)
    assert any("48 of 50 iterations" in note for note in light.notes)
    [exact] = workloads_of(wish(names=("light",), whole_calls=False))
    found = project(exact, ladder_of(SWARM), references_of(SWARM, []))
    assert found.calls == 50
    assert cents(found.references[0].cost.total) == "3.38"  # 50 * 750 tokens * 30 days at $3
    assert not any("rounded" in note for note in found.notes)


def test_the_scenario_of_208_000_decisions_at_both_price_lists() -> None:
    found = projected("eddt", ladder_of(LAPTOP))
    assert found.calls * found.days == 208_000
    totals = {one.model: cents(one.cost.total) for one in found.references}
    assert totals["claude-sonnet"] == "2808.00"
    assert totals["claude-haiku"] == "234.00"
    assert totals["claude-haiku-5-5"] == "93.60"  # 2,000 at $0.10 and 500 at $0.50 a million
    assert [str(use.share) for use in found.tiers.values()] == ["0.83", "0.15", "0.02"]
    assert found.cost.total == Decimal("93.6") * 2 / 100


def test_a_model_may_stand_in_for_all_api_lanes() -> None:
    found = projected("eddt", ladder_of(LAPTOP, "claude-sonnet"), "claude-sonnet")
    assert cents(found.cost.total) == "56.16"
    assert [one.model for one in found.references] == ["claude-sonnet"]
    assert found.references[0].savings_share == pytest.approx(0.98)


def test_tokens_out_have_their_own_price() -> None:
    [told] = workloads_of(wish(names=("medium",), output_share=0.25))
    found = project(told, ladder_of(SWARM), references_of(SWARM, []))
    # A quarter at $15 and the rest at $3: twice the price of all of it at $3.
    assert found.references[0].cost.total == 2 * projected("medium").references[0].cost.total
    assert not any("priced as input" in note for note in found.notes)


def test_what_is_over_a_budget_is_pointed_out() -> None:
    [much] = workloads_of(wish(names=("heavy",), iterations=20_000))
    notes = project(much, ladder_of(SWARM), references_of(SWARM, [])).notes
    assert any("over cloud_budget.per_day_usd ($10)" in note for note in notes)
    assert not any("per_day_usd" in note for note in projected("heavy").notes)


def test_without_an_api_lane_nothing_is_paid() -> None:
    tiny = ladder_of(load_catalog("tiny"))
    found = projected("heavy", tiny)
    assert found.cost.total == 0
    assert found.references[0].savings_share == 1
    assert any("no API lane" in note for note in found.notes)


@pytest.mark.parametrize("profile", ["gpu", "laptop", "nodespace", "swarm", "tiny", "zeus"])
@pytest.mark.parametrize("name", ["light", "medium", "heavy"])
def test_every_workload_runs_on_every_profile(profile: str, name: str) -> None:
    found = projected(name, ladder_of(load_catalog(profile)))
    assert found.references
    assert sum(use.calls for use in found.tiers.values()) == found.calls


def test_the_workloads_that_come_along() -> None:
    assert workload_names() == ["eddt", "heavy", "light", "medium"]


KINDS = ("write_memory", "read_file", "spawn_daemon", "exec", "git_status", "nobody_knows_it")


@given(
    shares=st.permutations([Decimal("0.1"), Decimal("0.15"), Decimal("0.2"), Decimal("0.25"),
                            Decimal("0.05"), Decimal("0.25")]),
    iterations=st.integers(1, 10_000), days=st.integers(1, 400),
    fallback=st.decimals(0, 1, places=3), tokens=st.tuples(st.integers(0, 5000),
                                                          st.integers(0, 5000)),
)  # fmt: skip
def test_a_projection_is_the_sum_of_its_calls(
    shares: list[Decimal], iterations: int, days: int, fallback: Decimal, tokens: tuple[int, int]
) -> None:
    mix = dict(zip(KINDS, shares, strict=True))
    one = Workload(name="own", iterations=iterations, days=days, mix=mix, fallback=fallback,
                   each=Tokens(input=tokens[0], output=tokens[1]))  # fmt: skip
    found = project(one, ladder_of(SWARM), references_of(SWARM, []))
    call = Decimal(3 * tokens[0] + 15 * tokens[1]) / 1_000_000
    to_api = mix["spawn_daemon"] + mix["exec"]
    [reference] = found.references
    assert reference.cost.daily == iterations * call
    assert found.cost.daily == iterations * call * (to_api + fallback * (1 - to_api))
    assert found.cost.total == days * found.cost.daily
    assert reference.savings.daily == reference.cost.daily - found.cost.daily
    for periods in (found.cost, reference.cost, reference.savings):
        assert consistent(periods)


def consistent(one: Periods) -> bool:
    return (one.weekly, one.monthly, one.yearly) == tuple(one.daily * n for n in (7, 30, 365))


def wish(**given: object) -> Wish:
    fields = ("names", "mix", "iterations", "tokens", "output_share", "fallback", "whole_calls",
              "days")  # fmt: skip
    return Wish(**{name: given.get(name, () if name == "names" else None) for name in fields})  # type: ignore[arg-type]


def test_a_mix_of_ones_own() -> None:
    [own] = workloads_of(
        wish(mix="edit_file=.75, exec=0.25", iterations=40, days=10.0, tokens="100+20")
    )
    assert (own.name, own.days, own.each) == ("own", 10, Tokens(input=100, output=20))
    found = project(own, ladder_of(SWARM), references_of(SWARM, []))
    assert {one.name: one.calls for one in found.asked} == {"edit_file": 30, "exec": 10}
    assert found.asked[0].lane == "tier2.code"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"names": ("busy",)}, "'busy' is unknown"),
        ({"names": ("light",), "days": 1.5}, "days"),
        ({"names": ("light",), "days": 0.0}, "days"),
        ({"mix": "exec=1"}, "--iterations"),
        ({"mix": "exec=1", "names": ("light",), "iterations": 1}, "name none beside it"),
        ({"mix": "exec", "iterations": 1}, "KIND=SHARE"),
        ({"mix": "exec=nan", "iterations": 1}, "KIND=SHARE"),
        ({"mix": "exec=.5,exec=.5", "iterations": 1}, "KIND=SHARE"),
        ({"mix": "exec=.5,run=.4", "iterations": 1}, "add up to 0.9"),
        ({"mix": "exec=2,run=-1", "iterations": 1}, "less than or equal to 1"),
        ({"mix": "exec=1", "iterations": 1, "tokens": "many"}, "IN+OUT"),
        ({"mix": "exec=1", "iterations": 1, "tokens": "1+2+3"}, "IN+OUT"),
    ],
)
def test_a_workload_that_is_none(given: dict[str, object], says: str) -> None:
    with pytest.raises(UptierError) as caught:
        workloads_of(wish(**given))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("iterations = 1\n", "give one of them"),
        ("iterations = 1\nmix = {run = 1.0}\ntiers = {cloud = 1.0}\n", "give one of them"),
        ("iterations = 1\ntiers = {cloud = 1.0}\n", "each = "),
        ("iterations = 0\nmix = {run = 1.0}\n", "iterations"),
        ("iterations = 1\nmix = {run = 1.0}\nshade = 1\n", "shade"),
        ("iterations = 1\nmix = {run = 1.0}\ndistribution = {cloud = 0.5}\n", "distribution"),
        ("iterations =", "not valid TOML"),
    ],
)
def test_a_workload_file_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UptierError) as caught:
        load_workload(str(path))
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


def test_models_that_cannot_be_priced_on() -> None:
    with pytest.raises(UptierError, match="'gpt-9' is not in profile 'swarm'"):
        references_of(SWARM, ["gpt-9"])
    with pytest.raises(UptierError, match="'phi3-mini' has no price"):
        references_of(SWARM, ["phi3-mini"])
    with pytest.raises(UptierError, match="--cloud"):
        ladder_of(SWARM, "phi3-mini")
    nameless = SWARM.model_copy(update={"reference_model": None})
    with pytest.raises(UptierError, match="names no reference_model"):
        references_of(nameless, [])
    tiers = Workload(name="x", iterations=1, tiers={"sky": 1}, each=Tokens(input=1))
    with pytest.raises(UptierError, match="tier 'sky'"):
        project(tiers, ladder_of(SWARM), references_of(SWARM, []))
