"""Which questions share an answer: tests of the cache key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.catalog import Catalog
from routing.decision import CacheScope, ChoiceOutput, JsonOutput, Privacy, Signals, TextOutput
from routing.fingerprint import load_bucket, normalised, place_of, policy_of
from tests.unit.catalogs import KINDS, catalog, decision

WEIGHTS = {
    "file": "small.gguf", "size": 1, "sha256": "0" * 64,
    "source": {"kind": "file", "path": "/nowhere/small.gguf"},
}  # fmt: skip


def plan(*names: str) -> JsonOutput:
    return JsonOutput(json_schema={"properties": {name: {"type": "string"} for name in names}})


def key(model: str = "m@1", run: str = "r", policy: str = "", **values: Any) -> str:
    return place_of(decision(**values), run, model, policy).key


@pytest.mark.parametrize(
    "change",
    [
        {"key": "another"},
        {"seed": 7},
        {"agent_id": "designer-17"},
        {"queue_length": 5},
        {"deadline_days": 3},
        {"prompt": "At 09:45 on 2026-11-22, what next?"},
        {"run": "another"},
        {"privacy": Privacy.MEDIUM},
        {"expected": "A"},
        {"day": 3},
    ],
)
def test_what_does_not_change_the_question_does_not_change_the_key(
    change: dict[str, Any],
) -> None:
    same = {"agent_id": "designer-1", "prompt": "At 14:30 on 2026-11-21, what next?"}
    assert key(**{**same, **change}) == key(**same)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "blocker_resolution"},
        {"agent_id": "reviewer-1"},
        {"queue_length": 6},
        {"deadline_days": 2.9},
        {"prompt": "What now?"},
        {"system": "You are a designer."},
        {"template": "next_action@2"},
        {"output": ChoiceOutput(labels=("B", "A"))},
        {"model": "m@2"},
        {"policy": "stricter"},
        {"adapter": "own"},
        {"adapter": ""},
        {"privacy": Privacy.HIGH},
        {"privacy": Privacy.MAXIMUM},
        {"cache": CacheScope.RUN},
        {"output": TextOutput()},
    ],
)
def test_what_changes_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    same = {"agent_id": "designer-1", "template": "next_action@1"}
    assert key(**{**same, **change}) != key(**same)


def test_private_answers_stay_in_their_domain() -> None:
    high = {"privacy": Privacy.HIGH}
    assert key(**high, agent_id="designer-1") == key(**high, agent_id="designer-2", run="s")
    most = {"privacy": Privacy.MAXIMUM}
    mine = key(**most, agent_id="designer-1")
    assert mine == key(**most, agent_id="designer-1", seed=7)
    assert mine != key(**most, agent_id="designer-2")
    assert mine != key(**most, agent_id="designer-1", run="s")


def test_answers_of_a_run_stay_in_it() -> None:
    own = {"cache": CacheScope.RUN}
    assert key(**own) == key(**own, seed=7)
    assert key(**own) != key(**own, run="s")


@pytest.mark.parametrize(
    "kind",
    [
        {"threshold": 0.9},
        {"margin": 0.2},
        {"critique": True},
        {"adapter": "own"},
        {"certified": True},
        {"grounded": True, "output": "text"},
    ],
)
def test_what_a_lane_accepts_is_part_of_its_policy(kind: dict[str, Any]) -> None:
    models = {"small": {"backend": "llama_cpp", "weights": WEIGHTS, "adapters": {"own": {}}}}

    def policy(**more: Any) -> str:
        changed = {**KINDS, "next_action": {"tier": "local_fast", **more}}
        found = catalog(kinds=changed, models={**catalog().model_dump()["models"], **models})
        return policy_of(decision(), found, "tier1")

    assert policy(**kind) != policy()


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ({"provider": "anthropic", "backend": "anthropic"}, {}),
        ({"reasoning_effort": "high"}, {}),
        ({}, {"base_url": "http://127.0.0.1:9/v1"}),
        ({}, {"base_url_env": "ANOTHER_URL"}),
    ],
)
def test_two_services_may_call_two_models_alike(
    model: dict[str, Any], provider: dict[str, Any]
) -> None:
    def policy(model: dict[str, Any], provider: dict[str, Any]) -> str:
        known = catalog().model_dump()
        known["models"]["gpt"] |= {"remote_name": "default", **model}
        known["providers"]["openai"] |= provider
        found = catalog(models=known["models"], providers=known["providers"])
        return policy_of(decision(), found, "tier3.openai")

    assert policy(model, provider) != policy({}, {})


def test_how_a_text_is_drawn_is_part_of_its_policy_and_of_no_choice() -> None:
    def policy(temperature: float, **asked: Any) -> str:
        tiers = {
            "local_fast": {"rank": 1, "sampling": {"temperature": temperature}},
            "local_quality": {"rank": 2},
            "cloud": {"rank": 3},
        }
        found: Catalog = catalog(tiers=tiers)
        return policy_of(decision(**asked), found, "tier1")

    assert policy(0.1, output=TextOutput()) != policy(0.2, output=TextOutput())
    assert policy(0.1) == policy(0.2)


def space(prompt: str, any_numbers: bool = False, **more: Any) -> str | None:
    asked = decision(prompt=prompt, **more)
    return place_of(asked, "r", "m", embedder="e", any_numbers=any_numbers).space


@pytest.mark.parametrize(
    "other",
    ["4 of 7 are done", "3 of 8 are done", "7 of 3 are done", "3 of 7 are not done",
     "3 of 7 aren't done", "all three of 3 of 7 are done"],
)  # fmt: skip
def test_other_numbers_and_denials_are_other_questions(other: str) -> None:
    assert space("3 of 7 are done") == space("3 of 7 have been finished")
    assert space("3 of 7 are done") != space(other)


def test_a_kind_may_let_numbers_differ_but_no_denial() -> None:
    assert space("3 are done", any_numbers=True) == space("4 are done", any_numbers=True)
    assert space("3 are done", any_numbers=True) != space("3 are not done", any_numbers=True)


@pytest.mark.parametrize(
    "change",
    [{"agent_id": "x-1"}, {"queue_length": 9}, {"system": "s"}, {"template": "t@2"},
     {"adapter": "a"}, {"privacy": Privacy.HIGH}, {"output": TextOutput()},
     {"cache": CacheScope.RUN}, {"kind": "blocker_resolution"}],
)  # fmt: skip
def test_alike_questions_share_all_else(change: dict[str, Any]) -> None:
    assert space("What next?") != space("What next?", **change)


def test_without_an_embedder_there_is_no_space() -> None:
    assert place_of(decision(), "r", "m").space is None


def test_a_key_is_a_sha256_in_hexadecimal() -> None:
    assert len(key()) == 64
    int(key(), 16)


def test_neighbouring_parts_cannot_be_mistaken_for_one_another() -> None:
    assert key(system="ab", prompt="c") != key(system="a", prompt="bc")


def test_a_long_queue_counts_before_a_near_deadline() -> None:
    assert load_bucket(Signals(queue_length=6, deadline_days=1)) == "high_load"
    assert load_bucket(Signals(queue_length=5, deadline_days=1)) == "urgent"
    assert load_bucket(Signals()) == "normal"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("due 2026-11-21", "due <date>"),
        ("due 21/11/2026, or 21.11.2026", "due <date>, or <date>"),
        ("due 3 Nov 2026 or November 3, 2026", "due <date> or <date>"),
        ("at 2026-11-21T14:30:05.123Z", "at <date><time>"),
        ("at 2026-11-21 09:15", "at <date> <time>"),
        ("from 09:15 to 18:00:30", "from <time> to <time>"),
        ("at 2:30 pm or 11 AM", "at <time> or <time>"),
        ("task 123e4567-e89b-12d3-a456-426614174000 waits", "task <id> waits"),
    ],
)
def test_dates_times_and_uuids_are_normalised(text: str, expected: str) -> None:
    assert normalised(text) == expected


@pytest.mark.parametrize(
    "text", ["scale 1:50", "version 1.2.3", "3 of 7 tasks", "may 5 people come", "part 2026-11"]
)
def test_other_numbers_stay_as_they_are(text: str) -> None:
    assert normalised(text) == text


def test_the_order_of_properties_is_part_of_the_question() -> None:
    assert key(output=plan("reason", "action")) != key(output=plan("action", "reason"))
    assert key(output=plan("reason", "action")) == key(output=plan("reason", "action"))


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)
