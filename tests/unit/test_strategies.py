"""Strategies, presets, bounds and forced specialists: what they make of a plan, and wrong ones."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from config.catalog import Catalog
from config.errors import InputError
from config.load import load_catalog, without_absent_lanes
from config.strategies import Factors
from routing.decision import Complexity, Plan, Preferences, Privacy, TextOutput
from routing.digest import digest_of
from routing.policy import lower_plan, plan
from routing.strategies import figures
from routing.wishes import as_private_as_wished, wishes_of
from tests.unit.catalogs import KINDS, LANES, MODELS, catalog, decision

PRICED = {
    **MODELS,
    "sonnet": {**MODELS["sonnet"], "price": {"input": "3", "output": "15"}, "quality": 0.95},
    "gpt": {**MODELS["gpt"], "price": {"input": "0.3", "output": "2"}, "quality": 0.8},
    "medium": {"backend": "scripted", "parameters_b": 7, "expected_tokens_per_s": 40},
}
PRESETS = {
    "creator": {"strategy": "hybrid", "privacy": "medium"},
    "enterprise": {"strategy": "quality", "privacy": "maximum"},
    "quick": {"max_latency_ms": 2000},
}


def shop(**changes: Any) -> Catalog:
    return catalog(**{"models": PRICED, "presets": PRESETS, **changes})


def planned(kind: str = "next_action", within: Catalog | None = None, **values: Any) -> Plan:
    return plan(decision(kind, **values), within or shop(), ())


def test_cost_starts_on_the_cheapest_lane_and_orders_providers_by_price() -> None:
    found = planned("conflict_resolution", strategy="cost")
    assert found.lanes == ("tier1", "tier2", "tier3.openai")
    assert found.hops[0].reason.startswith("strategy cost: tier1 costs least, about $0.0000")


def test_quality_starts_on_the_best_lane_whatever_it_costs() -> None:
    found = planned("next_action", strategy="quality")
    assert found.lanes == ("tier3", "tier3.openai")
    assert found.hops[0].reason == "strategy quality: tier3 is expected to do best, 0.95"


@pytest.mark.parametrize(
    ("weights", "lane"),
    [
        ({"cost": 1}, "tier1"),
        ({"quality": 1}, "tier3"),
        ({"latency": 1}, "tier2"),
        ({"cost": 1, "quality": 20}, "tier3"),
        ({"privacy": 1, "cost": 0.01}, "tier1"),
    ],
)
def test_hybrid_goes_where_the_weights_point(weights: dict[str, float], lane: str) -> None:
    found = planned(strategy="hybrid", weights=Factors.model_validate(weights))
    assert found.lanes[0] == lane
    assert f"strategy hybrid: {lane} scores best with" in found.hops[0].reason
    assert all(name in found.hops[0].reason for name in weights)


def test_weights_without_hybrid_are_noted() -> None:
    found = planned(strategy="cost", weights=Factors(cost=1))
    assert found.notes == ("weights are for strategy hybrid, and this is cost",)


def test_hybrid_climbs_higher_for_harder_decisions() -> None:
    weights = Factors(complexity=40, cost=1)
    lanes = [
        planned(strategy="hybrid", weights=weights, complexity=level).lanes[0]
        for level in (Complexity.SIMPLE, Complexity.EXPERT)
    ]
    assert lanes == ["tier1", "tier3"]


def test_urgency_makes_latency_count_more() -> None:
    weights = Factors(latency=1, quality=4)
    lanes = [
        planned(strategy="hybrid", weights=weights, urgency=urgency).lanes[0]
        for urgency in ("low", "high")
    ]
    assert lanes == ["tier3", "tier2"]


def test_privacy_medium_makes_providers_count_less_in_hybrid() -> None:
    weights = Factors(quality=1, privacy=0.5)
    lanes = [
        planned(strategy="hybrid", weights=weights, privacy=level).lanes[0]
        for level in (Privacy.LOW, Privacy.MEDIUM)
    ]
    assert lanes == ["tier3", "tier2"]


@pytest.mark.parametrize(
    ("values", "lane"),
    [
        ({"creativity": True}, "tier3"),
        ({"force_tier": "local_quality"}, "tier2"),
        ({"multi_file": True}, "tier3"),
    ],
)
def test_rules_wishes_and_raises_bind_a_strategy(values: dict[str, Any], lane: str) -> None:
    assert planned(strategy="cost", **values).hops[0].lane in (lane, f"{lane}.openai")


def test_an_override_binds_a_strategy_and_the_profile_may_name_one() -> None:
    routing = {"overrides": {"next_action": "local_quality"}, "strategy": "cost"}
    within = shop(routing=routing)
    assert planned(within=within).lanes[0] == "tier2"
    assert planned("conflict_resolution", within=within).lanes[0] == "tier1"
    assert planned("conflict_resolution", within=within, strategy="quality").lanes[0] == "tier3"


def test_local_work_costs_its_wear_and_a_switch_of_adapters() -> None:
    models = {**PRICED, "medium": {**WITH_ADAPTER, "parameters_b": 7}}
    within = shop(models=models)
    lane = digest_of(within).lanes["tier2"]
    text = TextOutput(max_tokens=1000)
    asked = decision(output=text, prompt="x" * 3996)
    assert figures(asked, lane, within).cost_nanos == 2_000 * 70
    wanted = decision(output=text, prompt="x" * 3996, adapter="sums-v1")
    assert figures(wanted, lane, within).cost_nanos == 140_000 + 1_000_000


def test_what_is_known_of_the_tokens_goes_before_what_is_reckoned() -> None:
    lane = digest_of(shop()).lanes["tier3"]
    text = TextOutput(max_tokens=100)
    assert (
        figures(decision(output=text, estimated_tokens=1100), lane, shop()).cost_nanos == 4_500_000
    )
    assert figures(decision(output=text, estimated_tokens=60), lane, shop()).cost_nanos == 900_000


def test_latency_comes_from_the_catalog_and_else_from_the_sort_of_lane() -> None:
    within = shop()
    asked = decision(output=TextOutput(max_tokens=100))
    found = {
        name: figures(asked, facts, within).latency_ms
        for name, facts in digest_of(within).lanes.items()
    }
    assert found == {
        "tier1": 125, "tier2": 2500, "tier2.math": 1100, "tier3": 3000, "tier3.openai": 3000,
    }  # fmt: skip


def test_lanes_out_of_bounds_are_left_out_and_named() -> None:
    found = planned(min_quality=0.7)
    assert found.lanes == ("tier2", "tier3", "tier3.openai")
    assert found.notes[0] == (
        "tier1 is left out: quality 0.60 is expected of it, below min_quality 0.70"
    )
    quick = planned("conflict_resolution", max_latency_ms=2000)
    assert quick.lanes == ("tier2",)
    assert "tier3 is left out: it is expected to take 3,000 ms, over" in " ".join(quick.notes)


def test_bounds_that_no_lane_keeps_are_refused_with_the_mend() -> None:
    with pytest.raises(InputError, match=r"no lane .* is left: .*lower min_quality"):
        planned(min_quality=1.0)


def test_enterprise_keeps_everything_on_the_machine() -> None:
    for kind in [*KINDS, "never_heard_of"]:
        found = planned(kind, preset="enterprise", creativity=True)
        assert found.lanes[0].startswith("tier2")
        assert not set(found.lanes) & {"tier3", "tier3.openai"}
    asked = decision(preset="enterprise")
    assert as_private_as_wished(asked, shop()).preferences.privacy is Privacy.MAXIMUM
    assert as_private_as_wished(decision(), shop()) == decision()


def test_a_preset_of_the_profile_holds_for_all_and_no_other_preset_lowers_it() -> None:
    within = shop(routing={"preset": "enterprise"})
    assert planned("conflict_resolution", within=within).lanes == ("tier2",)
    assert planned("conflict_resolution", within=within, preset="creator").lanes[0] != "tier3"
    assert wishes_of(decision(preset="creator"), within).privacy is Privacy.MAXIMUM


def test_what_a_decision_states_goes_before_its_preset() -> None:
    wishes = wishes_of(decision(preset="quick", max_latency_ms=90, strategy="cost"), shop())
    assert (wishes.max_latency_ms, wishes.strategy.value) == (90, "cost")
    assert wishes_of(decision(preset="quick"), shop()).max_latency_ms == 2000


@pytest.mark.parametrize("name", ["laptop", "swarm", "zeus", "nodespace"])
def test_every_profile_has_both_presets(name: str) -> None:
    keys = {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"}
    usable, absent = without_absent_lanes(load_catalog(name), keys.get)
    kept = plan(decision("general", preset="enterprise"), usable, absent)
    assert all(usable.is_local(usable.lanes[lane].model) for lane in kept.lanes)
    begun = plan(decision("general", preset="creator"), usable, absent)
    assert usable.is_local(usable.lanes[begun.lanes[0]].model)
    assert not usable.is_local(usable.lanes[begun.lanes[-1]].model)


def test_nodespace_sends_complex_requests_to_the_cloud_and_moderate_ones_on_wish() -> None:
    usable, absent = without_absent_lanes(load_catalog("nodespace"), {"OPENAI_API_KEY": "k"}.get)

    def first(**values: Any) -> str:
        return plan(decision("workflow_building", **values), usable, absent).lanes[0]

    assert first(complexity="simple", prefer_local=False) == "tier1"
    assert first(complexity="moderate") == "tier1"
    assert first(complexity="moderate", prefer_local=False) == "tier2.openai"
    assert first(complexity="complex") == "tier2.openai"
    assert first(complexity="expert", privacy="high") == "tier1"


# Specialists and adapters

WITH_ADAPTER = {
    "backend": "llama_cpp",
    "weights": {"file": "m.gguf", "source": {"kind": "hub", "repo": "a/b"}},
    "adapters": {"sums-v1": {}},
}


def test_a_forced_specialist_is_asked_first_wherever_it_stands() -> None:
    found = planned("next_action", specialist="math")
    assert found.lanes == ("tier2.math", "tier2", "tier3")
    assert found.hops[0].reason.startswith("the asker wants the specialist for math, on local_q")
    assert planned("residue_analysis", specialist="general").lanes[0] == "tier2"


def test_a_specialist_without_a_lane_here_is_stood_in_for_and_named() -> None:
    within = shop(lanes={name: lane for name, lane in LANES.items() if name != "tier2.math"})
    found = planned("next_action", within=within, specialist="math")
    assert found.lanes[0] == "tier1"
    assert found.notes == ("no lane for math can be used: others answer",)


def test_a_domain_that_is_a_speciality_goes_to_its_specialist() -> None:
    found = planned("never_heard_of", domain="Math")
    assert found.lanes[0] == "tier2.math"
    assert "it is about math" in found.hops[0].reason
    assert planned("never_heard_of", domain="cooking").lanes[0] == "tier2"


def test_an_adapter_that_no_lane_of_the_plan_has_is_refused() -> None:
    within = shop(models={**PRICED, "medium": WITH_ADAPTER})
    assert planned(within=within, adapter="sums-v1").lanes[1] == "tier2"
    with pytest.raises(InputError, match=r"adapter 'poems' is on none .* choose one of sums-v1"):
        planned(within=within, adapter="poems")
    with pytest.raises(InputError, match=r"adapter 'sums-v1' is on none .*drop it"):
        planned("conflict_resolution", within=within, adapter="sums-v1")


def test_a_stand_in_is_found_although_the_catalog_forgot_preset_and_specialist() -> None:
    asked = decision("conflict_resolution")
    whole = plan(asked, shop(), ())
    forgotten = decision("conflict_resolution", preset="gone", specialist="gone")
    lower = lower_plan(forgotten, whole, 0, shop())
    assert lower is not None
    assert lower.lanes[-1] == "tier2"


# Wrong input


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"specialist": "chess"}, r"specialist 'chess' is not in profile 'test'.*general, math"),
        ({"preset": "lavish"}, r"preset 'lavish' is not in profile 'test'.*creator, enterprise"),
    ],
)
def test_unknown_names_are_refused_with_the_choices(values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "greedy"}, "'local_first', 'cost', 'quality' or 'hybrid'"),
        ({"min_quality": 1.2}, "less than or equal to 1"),
        ({"max_latency_ms": 0}, "greater than 0"),
        ({"weights": {"cost": -1}}, "greater than or equal to 0"),
        ({"weights": {"cost": 0}}, "weights are all zero"),
        ({"weights": {"beauty": 1}}, "not permitted"),
        ({"weights": {"cost": float("inf")}}, "finite"),
    ],
)
def test_preferences_refuse_what_makes_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preferences(**values)


def test_the_digest_goes_with_its_catalog_and_is_not_taken_for_anothers() -> None:
    whole = shop()
    assert digest_of(whole) is digest_of(whole)
    narrowed = whole.model_copy(update={"lanes": {"tier1": whole.lanes["tier1"]}})
    assert list(digest_of(narrowed).lanes) == ["tier1"]
    assert len(digest_of(whole).lanes) == len(LANES)


def test_the_prices_of_a_lane_are_kept_to_a_billionth_of_a_dollar() -> None:
    model = {"backend": "scripted", "amortised_per_million": Decimal("0.015")}
    within = shop(models={**PRICED, "small": model})
    assert digest_of(within).lanes["tier1"].nanos_in == 15
