"""A pipeline's config and a step's metadata: what is accepted, and how wrong ones are refused."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from config.errors import ConfigurationError, InputError
from producers.pipeline.files import check_step_file, file_hash, read_input, write_json
from producers.pipeline.metadata import SCHEMA, check_metadata, run_id
from producers.pipeline.plan import InputFile, load_config
from producers.pipeline.queries import query_type, role_of
from producers.pipeline.steps import STEPS, Role
from tests.unit.pipeline_draws import CONFIG

EXAMPLE = tomllib.loads(CONFIG.read_text())
METADATA: dict[str, Any] = {
    "inputs": [{"file": "a.json", "hash": "sha256:0a", "required": True}],
    "outputs": ["b.json"],
    "parent_run_id": "step1_20251201_143022_abc123",
    "pipeline_step": 2,
    "pipeline_step_name": "scorer_meta_optimizer",
    "follow_up_agent": "full_scoring_agent",
    "confidence": 0.92,
    "suggested_params": {"threshold": 0.012, "k_folds": 5},
    "reasoning": "They overlap.",
    "success_criteria_met": True,
    "retry_count": 0,
    "cluster_resources": {"nodes": ["zeus"], "total_gpus": 2},
    "llm_metadata": {
        "orchestrator_model": "a", "math_model": "b", "orchestrator_calls": 3, "math_calls": 7,
        "total_tokens_generated": 2847,
        "llm_reasoning_trace": [
            {"timestamp": "2025-12-01T15:32:00Z", "model": "math", "query_type": "residue_analysis",
             "tokens": 342, "latency_ms": 9}
        ],
        "llm_decision": "proceed_with_high_confidence", "human_override_requested": False,
    },
}  # fmt: skip


def written(path: Path, change: Any) -> Path:
    data = copy.deepcopy(EXAMPLE)
    change(data)
    file = path / "pipeline.json"
    file.write_text(json.dumps(data))
    return file


def test_the_example_in_toml_and_in_json_is_the_same(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, lambda data: None)).config == load_config(CONFIG).config


def test_steps_name_their_followers_and_specialists() -> None:
    assert [(s.number, s.follow_up_agent, s.assigned.value) for s in STEPS] == [
        (1, "scorer_meta_agent", "math"), (2, "full_scoring_agent", "math"),
        (3, "ml_meta_agent", "both"), (4, "reinforcement_agent", "orchestrator"),
        (5, "prediction_agent", "both"), (6, None, "math"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("name"), "name: Field required"),
        (lambda d: d.pop("data"), "data: Field required"),
        (lambda d: d["steps"].pop(), "give all six"),
        (lambda d: d["steps"].reverse(), "in their order"),
        (lambda d: d["steps"][0].update(name="windows"), "'windows' is unknown: choose one of"),
        (lambda d: d["steps"][0].update(specialist="poet"), "specialist"),
        (lambda d: d["steps"][0]["parameters"].update(modulos=8), "modulos"),
        (lambda d: d["steps"][0]["success"].update(luck={"at_least": 1}), "luck is no figure"),
        (lambda d: d["steps"][0].update(success={}), "success"),
        (lambda d: d["steps"][0]["success"].update(survivors={}), "at_least or at_most"),
        (lambda d: d["steps"][3]["bounds"].update(k_folds=[8, 3]), "8 is above 3"),
        (lambda d: d["steps"][3]["bounds"].update(k_folds=[3, 99]), "k_folds"),
        (lambda d: d["steps"][3]["bounds"].update(colour=[1, 2]), "colour"),
        (lambda d: d["steps"][1].update(output="scored_survivors.json"), "two steps"),
        (lambda d: d["steps"][1].update(output="../x.json"), "output"),
        (lambda d: d["thresholds"].update(proceed=1.2), "proceed"),
        (lambda d: d["thresholds"].update(proceed=0.3), "above proceed"),
        (lambda d: d["data"].update(hash="md5:1"), "hash"),
        (lambda d: d.update(retries=-1), "retries"),
    ],
)
def test_a_malformed_config_is_one_line(tmp_path: Path, change: Any, says: str) -> None:
    with pytest.raises((ConfigurationError, InputError)) as caught:
        load_config(written(tmp_path, change))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [("x.json", "{", "not valid JSON"), ("x.json", "[]", "must hold an object"),
     ("x.toml", "= 1", "not valid TOML"), ("x.json", None, "cannot be read")],
)  # fmt: skip
def test_an_unreadable_config_is_one_line(
    tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises((ConfigurationError, InputError), match=says):
        load_config(tmp_path / name)


def test_a_step_takes_only_suggestions_within_its_bounds_and_of_its_types() -> None:
    step = load_config(CONFIG).config.steps[3]
    assert step.takes({"k_folds": 5.0}) == {"k_folds": 5}
    for wrong in (2, 9, 4.5, True, "5", None):
        assert step.takes({"k_folds": wrong}) == {}
    assert step.takes({"penalties": [1.0]}) == {}
    assert step.takes("k_folds") == {}


def test_the_schema_is_one_and_has_every_field() -> None:
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(METADATA)
    llm = schema["$defs"]["llm_metadata"]["properties"]
    assert set(llm) == set(METADATA["llm_metadata"])
    check_metadata(METADATA, "x")
    check_metadata({}, "x")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("confidence", 1.2, "agent_metadata.confidence: 1.2 is greater than the maximum of 1"),
        ("confidence", -0.1, "minimum of 0"),
        ("pipeline_step_name", "guessing", "'guessing' is not one of"),
        ("pipeline_step", 7, "maximum of 6"),
        ("follow_up_agent", 5, "follow_up_agent"),
        ("parent_run_id", "run 1", "'run 1'"),
        ("confidense", 1, "confidense"),
        ("inputs", [{"hash": "sha256:00"}], "'file' is a required property"),
        ("llm_metadata", {"llm_reasoning_trace": [{}] * 11}, "llm_reasoning_trace"),
        ("llm_metadata", {"human_override_requested": "no"}, "human_override_requested"),
    ],
)
def test_metadata_off_the_schema_are_one_line(key: str, value: object, says: str) -> None:
    with pytest.raises(InputError) as caught:
        check_metadata(METADATA | {key: value}, "step.json")
    assert says in str(caught.value)
    assert str(caught.value).startswith("step.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["run_id", "result", "agent_metadata"])
def test_a_step_file_without_a_key_is_refused(missing: str) -> None:
    whole = {"run_id": "x", "result": {}, "agent_metadata": METADATA}
    check_step_file(whole, "x")
    whole.pop(missing)
    with pytest.raises(InputError, match=f"no key '{missing}'"):
        check_step_file(whole, "x")


def test_a_run_id_has_step_time_and_seeded_suffix() -> None:
    assert run_id(1, 1_764_599_422_000_000, "a") == run_id(1, 1_764_599_422_999_999, "a")
    found = run_id(1, 1_764_599_422_000_000, "a")
    assert found.startswith("step1_20251201_143022_")
    assert found != run_id(1, 1_764_599_422_000_000, "b")
    check_metadata({"parent_run_id": found}, "x")


def test_a_file_of_another_hash_names_both_and_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    expected = write_json(path, {"a": 1})
    assert read_input(InputFile(file="a.json"), path, expected, "m") is not None
    path.write_text('{"a": 2}')
    with pytest.raises(InputError) as caught:
        read_input(InputFile(file="a.json"), path, expected, "write it anew with --from 1")
    assert expected in str(caught.value)
    assert file_hash(path) in str(caught.value)
    assert "--from 1" in str(caught.value)


def test_a_file_that_need_not_be_there_may_be_missing(tmp_path: Path) -> None:
    missing = tmp_path / "a.json"
    assert read_input(InputFile(file="a.json", required=False), missing, None, "m") is None
    with pytest.raises(InputError, match="is not at"):
        read_input(InputFile(file="a.json"), missing, None, "m")


def test_writing_leaves_either_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("the residue of the seed", "residue_analysis"),
        ("which seed was it, with what probability", "prng_state"),
        ("the confidence of this config", "statistical"),
        ("write JSON for the plan", "config_generation"),
        ("what is next", "orchestration"),
        ("say hello", "general"),
    ],
)
def test_the_first_query_type_that_fits_is_it(prompt: str, kind: str) -> None:
    assert query_type(prompt) == kind


def test_words_choose_the_specialist() -> None:
    assert role_of("Compute the residue of 742846 modulo 125.") is Role.MATH
    assert role_of("Write a JSON config for the next pipeline step.") is Role.ORCHESTRATOR
