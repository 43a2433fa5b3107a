"""Prompt templates: the constant part is constant, the state is short and comes filled in."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from config.catalog import Catalog
from config.errors import ConfigurationError, InputError
from config.load import KINDS, read_toml
from producers.prompts import PROMPTS, load_template
from routing.decision import ChoiceOutput, JsonOutput
from tests.unit.catalogs import catalog
from tests.unit.test_simulation import at_random, played

TIER_1_SYSTEM_CHARS = 750
SYSTEM_CHARS = 900
STATE_CHARS = 190
"""Four characters are about a token of such prose."""


@pytest.fixture(scope="module")
def eddt() -> Catalog:
    """The kinds of the simulation over made-up lanes."""
    data = read_toml(KINDS / "eddt.toml")
    return catalog(kinds=data["kinds"], routing=data["routing"])


def _constant(kind: str) -> tuple[str, str]:
    template = load_template(kind)
    return template.system, template.id


def test_all_agents_share_the_constant_part_of_a_kind(eddt: Catalog) -> None:
    constant = defaultdict(set)
    for seed in (1, 2):
        for decision in played(eddt, at_random, seed=seed)[0]:
            constant[decision.kind].add((decision.system, decision.template))
    assert all(len(parts) == 1 for parts in constant.values())
    assert all(parts == {_constant(kind)} for kind, parts in constant.items())


def test_prompts_are_short(eddt: Catalog) -> None:
    for decision in played(eddt, at_random)[0]:
        fast = eddt.kinds[decision.kind].tier == "local_fast"
        assert len(decision.system) <= (TIER_1_SYSTEM_CHARS if fast else SYSTEM_CHARS)
        assert len(decision.prompt) <= STATE_CHARS, decision.prompt
        assert decision.prompt == decision.prompt.strip()
        assert "{" not in decision.prompt
        assert decision.agent_id not in decision.prompt


def test_closed_choices_are_named_in_the_constant_part(eddt: Catalog) -> None:
    for name, kind in eddt.kinds.items():
        if kind.template and kind.labels:
            assert f"Reply with one of: {', '.join(kind.labels)}." in load_template(name).system


def test_named_tasks_are_in_the_state(eddt: Catalog) -> None:
    for decision in played(eddt, at_random)[0]:
        if decision.kind == "task_prioritization":
            assert isinstance(decision.output, ChoiceOutput)
            assert all(f"{label}: " in decision.prompt for label in decision.output.labels)


def test_json_fallbacks_hold_to_their_schema(eddt: Catalog) -> None:
    checked = set()
    for decision in played(eddt)[0]:
        if isinstance(decision.output, JsonOutput):
            Draft202012Validator(decision.output.json_schema).validate(
                json.loads(decision.fallback or "")
            )
            checked.add(decision.kind)
    assert checked == {"approach_selection", "recovery_planning"}


def test_every_template_of_the_simulation_has_a_kind(eddt: Catalog) -> None:
    for kind in eddt.kinds.values():
        if kind.template is not None:
            assert load_template(kind.template).state


def test_a_value_with_braces_stays_as_it_is() -> None:
    template = load_template("tool_selection")
    assert template.fields == {"step"}
    assert template.fill({"step": "draw {x}"}) == "Step: draw {x}."


def test_a_missing_value_is_named() -> None:
    with pytest.raises(InputError, match="tool_selection@1 has no value for 'step'"):
        load_template("tool_selection").fill({})


@pytest.mark.parametrize("name", ["nonsense", "../profiles/tiny", ""])
def test_an_unknown_template_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(InputError, match="choose one of .*next_action"):
        load_template(name)


@pytest.mark.parametrize(
    "text", ['version = "1"\nsystem = "x"\n', 'version = "1"\nsystem = ""\nstate = "y"\n', "= 1"]
)
def test_a_malformed_template_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_template("bad", tmp_path)
    assert "\n" not in str(caught.value)


def test_templates_lie_where_they_are_looked_for() -> None:
    assert (PROMPTS / "next_action.toml").is_file()
