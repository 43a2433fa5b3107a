"""Where decisions go: tests of the policy, the starting tier, and the complexity class."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigurationError, InputError
from config.load import AbsentLane
from routing.complexity import complexity
from routing.critique import critic_question
from routing.decision import Complexity, JsonOutput, Plan, Privacy
from routing.policy import lower_plan, next_hop, plan
from tests.unit.catalogs import KEY_MISSING, KINDS, LANES, catalog, decision, offline

SIGNALS = st.fixed_dictionaries(
    {
        "queue_length": st.integers(0, 50),
        "deadline_days": st.floats(0, 60),
        "task_complexity": st.sampled_from(["low", "medium", "high"]),
        "dependencies": st.integers(0, 9),
        "creativity": st.booleans(),
        "multi_agent": st.booleans(),
        "novel": st.booleans(),
        "multi_file": st.booleans(),
    }
)
WISHES = st.fixed_dictionaries(
    {
        "prefer_local": st.booleans(),
        "quality_critical": st.booleans(),
        "force_tier": st.sampled_from([None, "local_fast", "local_quality", "cloud"]),
    }
)


def planned(kind: str = "next_action", **values: Any) -> Plan:
    return plan(decision(kind, **values), catalog(), ())


@pytest.mark.parametrize(
    ("kind", "lanes"),
    [
        ("next_action", ("tier1", "tier2", "tier3")),
        ("blocker_resolution", ("tier2", "tier3", "tier3.openai")),
        ("conflict_resolution", ("tier3", "tier3.openai")),
        ("never_heard_of", ("tier2", "tier3", "tier3.openai")),
    ],
)
def test_a_kind_starts_on_its_tier_and_climbs_two_lanes_at_most(
    kind: str, lanes: tuple[str, ...]
) -> None:
    assert planned(kind).lanes == lanes


def test_every_hop_says_why_it_is_there() -> None:
    reasons = [hop.reason for hop in planned("next_action").hops]
    assert reasons == [
        "kind next_action belongs to local_fast",
        "climbs here if local_fast fails the check",
        "climbs here if local_quality fails the check",
    ]
    assert planned("conflict_resolution").hops[1].reason == "takes over if tier3 fails"
    assert "unknown" in planned("never_heard_of").hops[0].reason


def test_max_climbs_bounds_the_plan() -> None:
    alone = plan(decision(), catalog(routing={"max_climbs": 0}), ())
    whole = plan(decision(), catalog(routing={"max_climbs": 9}), ())
    assert alone.lanes == ("tier1",)
    assert whole.lanes == ("tier1", "tier2", "tier3", "tier3.openai")


@pytest.mark.parametrize(
    "signals",
    [
        {"multi_agent": True, "novel": True},
        {"creativity": True},
        {"quality_critical": True},
        {"prefer_local": False},
    ],
)
def test_a_rule_that_fits_forces_its_tier(signals: dict[str, bool]) -> None:
    first = planned("next_action", **signals).hops[0]
    assert first.lane == "tier3"
    assert first.reason.endswith("so it goes to cloud")


@pytest.mark.parametrize("signal", ["multi_agent", "novel"])
def test_a_rule_that_fits_in_part_forces_nothing(signal: str) -> None:
    assert planned("next_action", **{signal: True}).lanes[0] == "tier1"


def test_a_rule_may_name_a_kind_and_then_beats_the_askers_wish() -> None:
    rules = [{"when": {"kind": "exec"}, "tier": "cloud", "reason": "commands are run"}]
    found = plan(decision("exec", force_tier="local_fast"), catalog(routing={"rules": rules}), ())
    assert found.lanes[0] == "tier3"
    assert found.notes == ("force_tier local_fast is overruled: commands are run",)


def test_the_askers_wish_beats_an_override_and_an_override_the_kind() -> None:
    shop = catalog(routing={"overrides": {"next_action": "local_quality"}})
    assert plan(decision(), shop, ()).lanes[0] == "tier2"
    assert plan(decision(force_tier="cloud"), shop, ()).lanes[0] == "tier3"


def test_several_files_lift_the_kinds_tier_but_not_an_override() -> None:
    shop = catalog(routing={"overrides": {"blocker_resolution": "local_quality"}})
    assert planned("next_action", multi_file=True).lanes[0] == "tier3"
    assert plan(decision("blocker_resolution", multi_file=True), shop, ()).lanes[0] == "tier2"


def test_a_raise_never_lowers_a_tier() -> None:
    raises = [{"when": {"multi_file": True}, "tier": "local_quality", "reason": "several files"}]
    shop = catalog(routing={"raises": raises})
    assert plan(decision("conflict_resolution", multi_file=True), shop, ()).lanes[0] == "tier3"


def test_a_specialist_is_asked_before_the_generalist_of_its_tier() -> None:
    found = planned("residue_analysis")
    assert found.lanes == ("tier2.math", "tier2", "tier3")
    assert found.hops[0].reason.endswith("specialist for math")


def test_a_critique_is_answered_on_the_critics_tier() -> None:
    question = critic_question(decision("conflict_resolution"), "A", "k.critic")
    assert plan(question, catalog(), ()).lanes[0] == "tier1"


def test_without_a_key_plans_end_on_the_last_local_tier_and_say_so() -> None:
    shop, absent = offline()
    found = plan(decision(), shop, absent)
    assert found.lanes == ("tier1", "tier2")
    assert found.notes == (f"cloud: {KEY_MISSING}",)


@pytest.mark.parametrize("values", [{"force_tier": "cloud"}, {"creativity": True}])
def test_who_wants_an_absent_tier_starts_on_the_highest_that_is_there(
    values: dict[str, Any],
) -> None:
    shop, absent = offline()
    found = plan(decision(**values), shop, absent)
    assert found.lanes == ("tier2",)
    assert found.hops[0].reason.endswith("cloud cannot be used, so it starts on local_quality")
    assert found.notes == (f"cloud: {KEY_MISSING}",)


def test_who_wants_an_absent_tier_below_others_starts_on_the_next_above() -> None:
    shop = catalog(without=("tier1",))
    absent = (AbsentLane(lane="tier1", tier="local_fast", reason="model small is disabled"),)
    found = plan(decision(), shop, absent)
    assert found.lanes[0] == "tier2"
    assert found.notes == ("local_fast: model small is disabled",)


def test_a_provider_without_a_key_is_named_where_another_one_serves() -> None:
    absent = (AbsentLane(lane="tier3.openai", tier="cloud", reason="OPENAI_API_KEY is not set"),)
    found = plan(decision("conflict_resolution"), catalog(without=("tier3.openai",)), absent)
    assert found.lanes == ("tier3",)
    assert found.notes == ("cloud without tier3.openai: OPENAI_API_KEY is not set",)


def test_a_tier_that_no_lane_serves_is_named() -> None:
    found = plan(decision(), catalog(without=("tier3", "tier3.openai")), ())
    assert found.notes == ("cloud: profile test has no lane on it",)


def test_what_lies_beyond_the_last_climb_is_not_talked_about() -> None:
    shop = catalog(without=("tier3", "tier3.openai"), routing={"max_climbs": 1})
    assert plan(decision(), shop, ()).notes == ()


@pytest.mark.parametrize("privacy", [Privacy.HIGH, Privacy.MAXIMUM])
def test_a_private_decision_that_belongs_to_the_cloud_stays_and_says_why(privacy: Privacy) -> None:
    found = planned("conflict_resolution", privacy=privacy)
    assert found.lanes == ("tier2",)
    assert found.notes == (f"cloud: privacy {privacy.value} keeps this decision on the machine",)


@given(
    kind=st.sampled_from([*KINDS, "never_heard_of", "self_critique"]),
    privacy=st.sampled_from([Privacy.HIGH, Privacy.MAXIMUM]),
    signals=SIGNALS,
    wishes=WISHES,
    gone=st.sets(st.sampled_from(["tier1", "tier2", "tier3", "tier3.openai"])),
)
def test_a_private_decision_never_gets_a_cloud_lane(
    kind: str, privacy: Privacy, signals: dict[str, Any], wishes: dict[str, Any], gone: set[str]
) -> None:
    shop = catalog(without=tuple(gone))
    found = plan(decision(kind, privacy=privacy, **signals, **wishes), shop, ())
    assert all(shop.is_local(shop.lanes[lane].model) for lane in found.lanes)


@given(
    kind=st.sampled_from([*KINDS, "never_heard_of"]),
    privacy=st.sampled_from(Privacy),
    signals=SIGNALS,
    wishes=WISHES,
    gone=st.sets(st.sampled_from(list(LANES)), max_size=4).filter(lambda g: "tier1" not in g),
    climbs=st.integers(0, 5),
)
def test_a_plan_climbs_and_never_visits_a_lane_twice(
    kind: str,
    privacy: Privacy,
    signals: dict[str, Any],
    wishes: dict[str, Any],
    gone: set[str],
    climbs: int,
) -> None:
    shop = catalog(without=tuple(gone), routing={"max_climbs": climbs})
    found = plan(decision(kind, privacy=privacy, **signals, **wishes), shop, ())
    ranks = [shop.rank(lane) for lane in found.lanes]
    assert ranks == sorted(ranks)
    assert len(set(found.lanes)) == len(found.lanes) <= climbs + 1
    assert all(hop.reason for hop in found.hops)


@pytest.mark.parametrize("provider", [None, "openai"])
def test_an_http_model_is_not_local_unless_its_provider_says_so(provider: str | None) -> None:
    models = {"far": {"backend": "openai", "provider": provider}}
    lanes = {"tier1": {"tier": "local_fast", "model": "far"}}
    assert not catalog(models=models, lanes=lanes).is_local("far")


def test_a_private_decision_in_a_cloud_only_profile_is_refused_with_the_mend() -> None:
    shop = catalog(without=("tier1", "tier2", "tier2.math"))
    with pytest.raises(InputError, match=r"privacy 'high'.*profile 'test'.*lower preferences"):
        plan(decision(privacy=Privacy.HIGH), shop, ())


def test_an_unknown_forced_tier_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"force_tier 'moon'.*local_fast, local_quality, cloud"):
        planned(force_tier="moon")


def test_a_schema_that_is_none_is_refused_before_anybody_is_asked() -> None:
    faulty = JsonOutput(json_schema={"type": "objekt"})
    with pytest.raises(InputError, match="json_schema is no JSON Schema: type: 'objekt'"):
        planned(output=faulty)


def test_a_rule_about_something_that_decisions_lack_is_refused() -> None:
    rules = [{"when": {"moon": "full"}, "tier": "cloud", "reason": "full moon"}]
    with pytest.raises(ConfigurationError, match=r"routing.rules\[0\].when.moon is neither"):
        plan(decision(), catalog(routing={"rules": rules}), ())


def test_the_next_hop_skips_lanes_that_are_gone() -> None:
    shop = catalog(without=("tier2",))
    assert next_hop(("tier1", "tier2", "tier3"), 0, shop, Privacy.LOW) == 2
    assert next_hop(("tier1", "tier2"), 0, shop, Privacy.LOW) is None


def test_the_next_hop_of_a_private_decision_never_leaves_the_machine() -> None:
    lanes = ("tier1", "tier3", "tier2")
    assert next_hop(lanes, 0, catalog(), Privacy.HIGH) == 2
    assert next_hop(lanes, 0, catalog(), Privacy.LOW) == 1
    assert next_hop(lanes, 2, catalog(), Privacy.LOW) is None


@pytest.mark.parametrize(
    ("kind", "signals", "expected"),
    [
        ("next_action", {}, Complexity.SIMPLE),
        ("blocker_resolution", {}, Complexity.MODERATE),
        ("conflict_resolution", {}, Complexity.COMPLEX),
        ("never_heard_of", {}, Complexity.MODERATE),
        ("next_action", {"task_complexity": "high"}, Complexity.MODERATE),
        ("next_action", {"task_complexity": "high", "dependencies": 4}, Complexity.COMPLEX),
        ("blocker_resolution", {"task_complexity": "low"}, Complexity.SIMPLE),
        ("next_action", {"task_complexity": "low"}, Complexity.SIMPLE),
        ("next_action", {"multi_file": True}, Complexity.COMPLEX),
        ("next_action", {"novel": True}, Complexity.MODERATE),
        ("next_action", {"novel": True, "multi_agent": True}, Complexity.EXPERT),
        ("next_action", {"creativity": True}, Complexity.EXPERT),
        ("conflict_resolution", {"task_complexity": "high", "novel": True}, Complexity.EXPERT),
    ],
)
def test_complexity_follows_the_kind_and_its_signals(
    kind: str, signals: dict[str, Any], expected: Complexity
) -> None:
    assert complexity(decision(kind, **signals), catalog()) is expected


def test_the_next_hop_skips_lanes_that_must_not_be_called_now() -> None:
    lanes = ("tier1", "tier2", "tier3", "tier3.openai")
    assert next_hop(lanes, 1, catalog(), Privacy.LOW, {"tier3"}) == 3
    assert next_hop(lanes, 1, catalog(), Privacy.LOW, {"tier3", "tier3.openai"}) is None


def test_the_best_free_lane_stands_in_for_a_paid_one() -> None:
    asked = decision("conflict_resolution")
    whole = plan(asked, catalog(), ())
    assert whole.lanes == ("tier3", "tier3.openai")
    lower = lower_plan(asked, whole, 0, catalog())
    assert lower is not None
    assert lower.lanes == ("tier3", "tier2")
    both_tried = lower.model_copy(
        update={"hops": (*lower.hops, lower.hops[1].model_copy(update={"lane": "tier1"}))}
    )
    assert lower_plan(asked, both_tried, 2, catalog()) is None


def test_a_forced_lane_is_asked_before_the_others_of_its_tier() -> None:
    found = planned(force_lane="tier2.math")
    assert found.lanes == ("tier2.math", "tier2", "tier3")
    assert found.hops[0].reason.startswith("the asker wants lane tier2.math")
    assert planned(force_lane="tier3.openai").lanes == ("tier3.openai", "tier3")


def test_a_rule_beats_a_forced_lane_as_it_beats_a_forced_tier() -> None:
    found = planned(force_lane="tier1", creativity=True)
    assert found.lanes[0] == "tier3"
    assert found.notes == ("force_lane tier1 is overruled: creativity is asked for",)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"force_lane": "moon"}, r"force_lane 'moon'.*tier1, tier2"),
        ({"force_lane": "tier1", "force_tier": "cloud"}, r"tier local_fast, and force_tier"),
        ({"force_lane": "tier3", "privacy": Privacy.HIGH}, r"privacy 'high'.*'tier3' is not"),
    ],
)
def test_a_lane_that_cannot_be_forced_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        planned(**values)
