"""Profiles and kinds: all load, and whatever is wrong in one is told in one line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.catalog import BackendName, Catalog, HubSource, OutputType, Weights
from config.errors import ConfigurationError
from config.load import KINDS, _merge, load_catalog, profile_names, without_absent_lanes
from routing.decision import ChoiceOutput, Decision, Privacy, TextOutput, output_for
from routing.policy import plan
from routing.structured import schema_fault
from tests.unit.catalogs import decision

KEYS = {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"}
PROFILE = """
[tiers.local_fast]
rank = 1

[lanes.tier1]
tier = "local_fast"
model = "small"

[models.small]
backend = "scripted"

[kinds.next_action]
tier = "local_fast"

[routing]
unknown_kind_tier = "local_fast"
critic_tier = "local_fast"
"""


def written(directory: Path, text: str) -> str:
    path = directory / "mine.toml"
    path.write_text(text)
    return str(path)


def fault(directory: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        load_catalog(written(directory, text))
    message = str(error.value)
    assert "\n" not in message
    assert "mine.toml" in message
    return message


# Profiles that come with Uptier


@pytest.fixture(params=profile_names())
def profile(request: pytest.FixtureRequest) -> Catalog:
    return load_catalog(request.param)


def test_every_profile_loads_and_plans_all_of_its_kinds(profile: Catalog) -> None:
    for environ in ({}, KEYS):
        usable, absent = without_absent_lanes(profile, environ.get)
        for kind in [*profile.kinds, "never_heard_of"]:
            assert plan(decision(kind), usable, absent).hops


def test_every_profile_keeps_private_decisions_on_the_machine(profile: Catalog) -> None:
    usable, absent = without_absent_lanes(profile, KEYS.get)
    for kind in profile.kinds:
        lanes = plan(decision(kind, privacy=Privacy.MAXIMUM), usable, absent).lanes
        assert all(usable.is_local(usable.lanes[lane].model) for lane in lanes)


def test_every_kind_of_every_profile_has_a_sound_output(profile: Catalog) -> None:
    for name, kind in profile.kinds.items():
        if kind.output is OutputType.JSON and kind.json_schema is not None:
            assert schema_fault(kind.json_schema) is None
        if kind.output is OutputType.CHOICE and kind.labels:
            assert output_for(profile, name) == ChoiceOutput(labels=kind.labels)
        if kind.output is OutputType.TEXT:
            assert isinstance(output_for(profile, name), TextOutput)


def test_every_cloud_model_of_every_profile_has_a_price(profile: Catalog) -> None:
    for name, model in profile.models.items():
        assert (model.price.micros(1_000_000, 1_000_000) > 0) is not profile.is_local(name)


def test_no_profile_binds_or_asks_a_local_server_beyond_loopback(profile: Catalog) -> None:
    for provider in profile.providers.values():
        if provider.local:
            assert provider.base_url is not None
            assert provider.base_url.startswith("http://127.0.0.1:")
            assert provider.base_url_env is None


@pytest.mark.parametrize(
    ("name", "dollars"), [("claude-sonnet", Decimal(2808)), ("claude-haiku", Decimal(234))]
)
def test_the_all_cloud_scenario_costs_what_its_price_list_says(name: str, dollars: Decimal) -> None:
    price = load_catalog("laptop").models[name].price
    assert Decimal(price.micros(2_000, 500) * 50 * 32 * 130) / 1_000_000 == dollars


def test_the_gpu_profile_holds_all_models_of_the_scenario_at_q4_k_m() -> None:
    gpu = load_catalog("gpu")
    local = {n: m for n, m in gpu.models.items() if m.backend is BackendName.LLAMA_CPP}
    assert set(local) == {
        "qwen2.5-1.5b", "phi-3.5-mini", "smollm2-1.7b", "qwen2.5-7b", "mistral-7b",
        "llama-3.1-8b", "gemma-2-9b", "qwen2.5-14b",
    }  # fmt: skip
    for model in local.values():
        assert model.weights is not None
        assert isinstance(model.weights.source, HubSource)
        assert "q4_k_m" in model.weights.file.lower()
        assert model.vram_mb
        assert model.expected_tokens_per_s


def test_the_larger_gpu_model_is_climbed_only_where_it_is_enabled() -> None:
    gpu = load_catalog("gpu")
    usable, absent = without_absent_lanes(gpu, KEYS.get)
    assert plan(decision("next_action"), usable, absent).lanes == ("tier1", "tier2", "tier3")
    larger = gpu.models["qwen2.5-14b"].model_copy(update={"enabled": True})
    whole = gpu.model_copy(update={"models": {**gpu.models, "qwen2.5-14b": larger}})
    usable, absent = without_absent_lanes(whole, KEYS.get)
    assert plan(decision("next_action"), usable, absent).lanes == (
        "tier1", "tier2", "tier2.plus", "tier3",
    )  # fmt: skip


def swarm_plan(kind: str, **values: object) -> tuple[str, ...]:
    usable, absent = without_absent_lanes(load_catalog("swarm"), KEYS.get)
    return plan(decision(kind, **values), usable, absent).lanes


def test_the_swarm_goes_from_one_provider_to_the_next_within_the_cloud() -> None:
    assert swarm_plan("orchestrate") == ("tier3", "tier3.openai", "tier3.haiku")
    assert swarm_plan("yes_no_decision") == ("tier1", "tier2", "tier3")
    assert swarm_plan("edit_file") == ("tier2.code", "tier2", "tier3")


@pytest.mark.parametrize("kind", ["spawn_daemon", "exec"])
def test_the_swarm_always_sends_dangerous_actions_to_the_cloud(kind: str) -> None:
    assert swarm_plan(kind, force_tier="local_fast")[0] == "tier3"


@pytest.mark.parametrize(
    "values", [{"quality_critical": True}, {"prefer_local": False}, {"multi_file": True}]
)
def test_the_swarm_sends_critical_and_complex_actions_to_the_cloud(
    values: dict[str, bool],
) -> None:
    assert swarm_plan("read_file", **values)[0] == "tier3"


def test_the_swarms_overrides_are_heeded() -> None:
    routing = load_catalog("swarm").routing
    assert routing.overrides == {
        "spawn_daemon": "cloud", "orch_status": "local_fast", "consolidate": "local_quality",
    }  # fmt: skip
    assert swarm_plan("consolidate", multi_file=True)[0] == "tier2"


def test_zeus_asks_its_math_specialist_then_the_orchestrator() -> None:
    usable, absent = without_absent_lanes(load_catalog("zeus"), {}.get)
    assert plan(decision("residue_analysis"), usable, absent).lanes == ("tier2.math", "tier2")
    assert plan(decision("orchestration"), usable, absent).lanes == ("tier2",)


# What is wrong in a profile


def test_an_unknown_profile_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="profile 'moon' is unknown: choose one of gpu, "):
        load_catalog("moon")


def test_a_profile_of_ones_own_is_loaded_by_its_path(tmp_path: Path) -> None:
    assert load_catalog(written(tmp_path, PROFILE)).profile == "mine"


def test_broken_toml_is_told_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in fault(tmp_path, "[tiers.local_fast]\nrank 1\n")


def test_bytes_that_are_no_text_are_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"mine\.toml cannot be read"):
        load_catalog(str(path))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('model = "small"', 'model = "big"', "lanes.tier1.model = 'big' is not defined"),
        ('_fast"\nmodel', '_slow"\nmodel', "lanes.tier1.tier = 'local_slow' is not defined"),
        ("critic_tier", "kritik_tier", "routing.critic_tier: Field required"),
        ('backend = "scripted"', 'backend = "magic"', "models.small.backend"),
        ('backend = "scripted"', 'backend = "llama_cpp"', "needs [weights]"),
        ("rank = 1", "rank = 0", "tiers.local_fast.rank"),
        ("rank = 1", "rang = 1", "tiers.local_fast.rank: Field required"),
        ("[lanes.tier1]", '[lanes."tier 1"]', "lanes.tier 1"),
        ("[routing]", '[routing]\noverrides = { dance = "local_fast" }', "kind = 'dance' is not"),
        ("[routing]", '[routing]\nstrategy = "greedy"', "routing.strategy"),
        ("[routing]", '[routing]\npreset = "lavish"', "creator, enterprise"),
        ("[routing]", "[routing]\nweights = { cost = -1 }", "routing.weights.cost"),
        ("[routing]", "[routing]\nweights = { cost = 0 }", "weights are all zero"),
        ("[routing]", "[specialities.math]\nwords = { a = 1 }\n[routing]", "'math' is not defined"),
        ("[routing]", "[specialities.general]\nwords = { A-B = 1 }\n[routing]", "'A-B' is no word"),
        ("[tiers", "include = [5]\n[tiers", "include 5 is unknown"),
        ("[tiers", 'include = ["moon"]\n[tiers', "include 'moon' is unknown"),
        ("[tiers", 'include = ["../profiles/tiny"]\n[tiers', "is unknown: choose from"),
        (
            "[routing]",
            '[routing]\noverrides = { next_action = "moon" }',
            "routing.overrides.next_action = 'moon' is not defined: choose one of local_fast",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in PROFILE
    assert words in fault(tmp_path, PROFILE.replace(old, new))


@pytest.mark.parametrize("name", ["rules", "raises"])
def test_a_rule_for_an_unknown_tier_is_named(tmp_path: Path, name: str) -> None:
    rule = f'\n[[routing.{name}]]\nwhen = {{ novel = true }}\ntier = "moon"\nreason = "r"\n'
    assert f"routing.{name}[0].tier = 'moon' is not defined" in fault(tmp_path, PROFILE + rule)


@pytest.mark.parametrize("name", ["../x.gguf", "/x.gguf", "a/b.gguf", "a\\b.gguf", "..", ""])
def test_weights_must_be_plain_file_names(name: str) -> None:
    with pytest.raises(ValidationError, match="plain file name"):
        Weights(file=name, source=HubSource(repo="a/b"))


def test_a_profile_without_any_usable_lane_says_what_each_lane_lacks(tmp_path: Path) -> None:
    text = PROFILE.replace('backend = "scripted"', 'backend = "scripted"\nenabled = false')
    shop = load_catalog(written(tmp_path, text))
    with pytest.raises(ConfigurationError, match="no usable lane: tier1: model small is disabled"):
        without_absent_lanes(shop, {}.get)


# Merging


def test_rules_of_included_files_are_joined_and_the_profile_comes_last() -> None:
    first = {"routing": {"rules": [1], "max_climbs": 2}}
    second = {"routing": {"rules": [2], "raises": [3]}}
    profile = {"routing": {"rules": [4], "max_climbs": 1}}
    merged = _merge(_merge(first, second), profile)
    assert merged == {"routing": {"rules": [1, 2, 4], "raises": [3], "max_climbs": 1}}


def test_all_other_lists_are_replaced_wherever_they_stand() -> None:
    below = {"kinds": {"a": {"labels": ["x"]}}, "rules": [1], "kinds_rules": {"rules": [1]}}
    above = {"kinds": {"a": {"labels": ["y"]}}, "rules": [2], "kinds_rules": {"rules": [2]}}
    assert _merge(below, above) == above


def test_merging_leaves_what_it_is_given_as_it_is() -> None:
    below = {"routing": {"rules": [1]}}
    _merge(below, {"routing": {"rules": [2]}})
    assert below == {"routing": {"rules": [1]}}


def test_the_rules_of_all_included_kinds_are_in_force() -> None:
    laptop = load_catalog("laptop").routing
    keys = {key for rule in laptop.rules for key in rule.when}
    assert {"creativity", "quality_critical"} <= keys
    assert {path.stem for path in KINDS.glob("*.toml")} >= {"eddt", "swarm"}


def test_a_decision_of_the_scenario_is_planned_with_its_reason() -> None:
    usable, absent = without_absent_lanes(load_catalog("laptop"), {}.get)
    asked = Decision(
        kind="next_action",
        prompt="Task done.",
        output=ChoiceOutput(labels=("CONTINUE", "SWITCH", "IDLE")),
        key="k",
    )
    found = plan(asked, usable, absent)
    assert found.hops[0].reason == "kind next_action belongs to local_fast"
    assert found.notes == ("cloud: ANTHROPIC_API_KEY is not set",)
