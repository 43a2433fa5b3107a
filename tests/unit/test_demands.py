"""What kinds ask for beside their output: languages, fields, facts, and phrases for a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.demands import Demands
from config.errors import ConfigurationError
from config.load import load_catalog
from routing.agreement import agreement
from routing.decision import ChoiceOutput, JsonOutput, Output, TextOutput
from routing.grounding import inventions
from routing.quality import Answer, Verdict, check
from routing.refusals import refuses
from routing.syntax import MAX_CODE, syntax_fault
from tests.unit.labelled_refusals import POLITE, REFUSALS

TEXT = TextOutput()
FREE = JsonOutput(json_schema={"type": "object"})
PYTHON = Demands(language="python")
SQL = Demands(language="sql", dialect="postgres")


def judged(raw: str, demands: Demands, output: Output = TEXT, **values: Any) -> Verdict:
    answer = Answer(raw, **values)
    return check(answer, output, threshold=0.7, margin=0.1, critique=None, demands=demands)


# Syntax


@pytest.mark.parametrize(
    ("raw", "demands"),
    [
        ("def f(a):\n    return a + 1", PYTHON),
        ("import re\nre.match('\\d', 'a')", PYTHON),
        ("SELECT a, count(*) FROM t WHERE b = 'x' GROUP BY a", SQL),
        ("WITH x AS (SELECT 1) SELECT * FROM x; DELETE FROM t;", SQL),
        ("SELECT a::int FROM t", SQL),
        ("CREATE TABLE t (a int PRIMARY KEY)", SQL),
        ("EXPLAIN SELECT 1", SQL),
        ('{"a": [1, 2]}', Demands(language="json")),
    ],
)
def test_code_that_parses_passes_with_full_marks(raw: str, demands: Demands) -> None:
    verdict = judged(raw, demands)
    assert (verdict.score, verdict.answer, verdict.issues) == (1.0, raw, ())


@pytest.mark.parametrize(
    ("raw", "demands", "words"),
    [
        ("def f(a)\n    return a", PYTHON, "not Python: line 1: expected ':'"),
        ("Here is the code.", PYTHON, "not Python: line 1"),
        ("# nothing but words", PYTHON, "it holds no statement"),
        ("(" * 5000, PYTHON, "not Python"),
        ("-" * 9000 + "1", PYTHON, "not Python"),
        ("SELEC a FROM t", SQL, "not SQL: Invalid expression"),
        ("SELECT a FROM t WHERE", SQL, "not SQL"),
        ("hello world", SQL, "an expression is no statement"),
        ("the bracket", SQL, "an expression is no statement"),
        ("SELECT", SQL, "a list is empty"),
        ("-- a comment", SQL, "it holds no statement"),
        ("SELECT 'a", SQL, "not SQL"),
        ("SELECT " + "(" * 9000, SQL, "not SQL: nested too deeply"),
        ("{'a': 1}", Demands(language="json"), "not JSON"),
        ("NaN", Demands(language="json"), "NaN is not JSON"),
        ("I cannot help with that.", PYTHON, "the model refuses"),
        ("", PYTHON, "the answer is empty"),
    ],
)
def test_what_does_not_parse_in_the_declared_language_is_vetoed(
    raw: str, demands: Demands, words: str
) -> None:
    verdict = judged(raw, demands)
    assert words in verdict.vetoes[0]
    assert (verdict.passed, verdict.answer) == (False, "")


def test_code_is_taken_out_of_its_fence_at_the_cost_of_half_its_format() -> None:
    verdict = judged("Here it is:\n```python\nprint(1)\n```\nDone.", PYTHON)
    assert (verdict.answer, verdict.format, verdict.score) == ("print(1)", 0.5, 0.8125)


def test_code_that_the_token_limit_ended_is_not_complete() -> None:
    assert judged("a = 1", PYTHON, truncated=True).completeness == 0.0
    assert "token limit" in judged("a = (1,", PYTHON, truncated=True).vetoes[0]


@pytest.mark.parametrize(
    ("block", "holds"),
    [
        ("```python\nprint(1)\n```", True),
        ("```python\n    indented = 1\n```", True),
        ("```python\n>>> 1 + 1\n2\n```", True),
        ("```\nnot marked as anything (\n```", True),
        ("```yaml\na: [\n```", True),
        ("```sql\nSELECT a FROM t;\n```", True),
        ("```json\n[1]\n```", True),
        ("```python\nprint(1\n```", False),
        ("```sql\nSELECT FROM WHERE\n```", False),
        ("```json\n{a: 1}\n```", False),
    ],
)
def test_code_blocks_of_a_text_must_parse_as_what_they_are_marked(block: str, holds: bool) -> None:
    verdict = judged(f"Do it in this way:\n{block}\nThat is all.", Demands())
    assert (verdict.coherence == 1.0, verdict.passed) == (holds, holds)
    assert verdict.vetoes == ()


@given(st.text(max_size=300), st.sampled_from(["python", "sql", "json"]))
def test_the_parsers_never_raise(code: str, language: Any) -> None:
    fault = syntax_fault(code, language)
    assert fault is None or fault.startswith("not ")


@pytest.mark.parametrize(
    "piece", ["(SELECT * FROM ", "NOT ", "CASE WHEN ", "- ", "[", "f(", "a.b.", "a AND "]
)
def test_code_nested_as_deeply_as_is_looked_at_ends_no_worker(piece: str) -> None:
    code = ("SELECT " + piece * MAX_CODE)[:MAX_CODE]
    for language in ("sql", "python", "json"):
        syntax_fault(code, language)
    assert syntax_fault(code + "(", "sql") is None


# Required fields

FIELDS = Demands(required_fields=("DECISION", "TARGET"))


@pytest.mark.parametrize(
    "raw",
    [
        "DECISION: WAIT\nTARGET: the lead",
        "**Decision:** wait\n**Target:** the lead",
        "DECISION: **WAIT**\nTARGET: _Mara_",
        "Let us see.\n- decision : WAIT\n- target: Mara",
    ],
)
def test_fields_are_found_in_the_ways_models_write_them(raw: str) -> None:
    assert judged(raw, FIELDS).score == 1.0


@pytest.mark.parametrize(
    ("raw", "missing"),
    [
        ("DECISION: WAIT", "TARGET"),
        ("DECISION: WAIT\nTARGET:", "TARGET"),
        ("DECISION:\nTARGET: Mara", "DECISION"),
        ("The decision is to wait, the target is Mara.", "DECISION, TARGET"),
        ("MY_TARGET: Mara\nDECISION: WAIT", "TARGET"),
    ],
)
def test_a_missing_or_empty_field_never_passes(raw: str, missing: str) -> None:
    verdict = judged(raw, FIELDS)
    assert (verdict.format, verdict.completeness, verdict.passed) == (0.0, 0.0, False)
    assert f"required and missing: {missing}" in verdict.issues


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        ({"DECISION": "WAIT", "TARGET": "Mara"}, True),
        ({"DECISION": "WAIT", "TARGET": 0}, True),
        ({"DECISION": "WAIT", "TARGET": " "}, False),
        ({"DECISION": "WAIT", "TARGET": None}, False),
        ({"DECISION": "WAIT"}, False),
    ],
)
def test_fields_are_keys_in_json(value: dict[str, Any], passes: bool) -> None:
    assert judged(json.dumps(value), FIELDS, FREE).passed is passes


# Refusals


@pytest.mark.parametrize("text", REFUSALS)
def test_labelled_refusals_are_told(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize("text", POLITE)
def test_labelled_polite_prose_is_no_refusal(text: str) -> None:
    assert not refuses(text)


# Groundedness

PROMPT = (
    "To Mara: the belt drawing TASK-17 (file belt_v2.step) is half done, two reviews wait, "
    "load case 4 took 1,500 s. Owner: the CAD team."
)
GROUNDED = Demands(grounded=True)


@pytest.mark.parametrize(
    "text",
    [
        "The drawing of TASK-17 is half done.",
        "Mara's belt is done. Please look at belt_v2.step.",
        "There are 2 reviews, and load case 4 took 1500.0 seconds (1,500s).",
        "1. Ask Mara.\n2. Close it.",
        "Hi Mara, OK, I'm on it: the CADs are fine.",
        "Cad-made and/or mara-approved.",
        "We will tell you (As soon as it is done).",
    ],
)
def test_what_the_prompt_says_is_grounded(text: str) -> None:
    assert inventions(text, PROMPT) == []


@pytest.mark.parametrize(
    ("text", "invented"),
    [
        ("It takes 3 days.", ["3"]),
        ("It takes 17.5 h, until 10:30.", ["17.5", "10", "30"]),
        ("It is TASK-18.", ["TASK-18"]),
        ("Ask Tom about belt_v3.step on Friday.", ["Tom", "belt_v3.step", "Friday"]),
        ("See the FEA of solveIt, the 5-day one.", ["FEA", "solveIt", "5"]),
        ("Write to a.b@c.org.", ["a.b@c.org"]),
    ],
)
def test_what_it_does_not_say_is_invented(text: str, invented: list[str]) -> None:
    assert inventions(text, PROMPT) == invented


def test_an_invention_costs_the_coherence_where_the_kind_is_grounded() -> None:
    text = "Please ask Tom for the drawing."
    verdict = judged(text, GROUNDED, prompt=PROMPT)
    assert (verdict.coherence, verdict.passed) == (0.0, False)
    assert verdict.issues == ("not in the prompt: 'Tom'",)
    assert judged(text, Demands(), prompt=PROMPT).passed


def test_json_is_grounded_by_its_values() -> None:
    well, badly = '{"Owner of It": "Mara", "n": 4.0}', '{"owner": "Mara", "n": [5]}'
    assert judged(well, GROUNDED, FREE, prompt=PROMPT).passed
    assert judged(badly, GROUNDED, FREE, prompt=PROMPT).issues == ("not in the prompt: '5'",)


@given(st.text(max_size=200))
def test_a_text_is_grounded_in_itself(text: str) -> None:
    assert inventions(text, text) == []


# Phrases for a person


def test_a_phrase_that_asks_for_a_person_is_flagged_and_costs_nothing() -> None:
    verdict = judged("The bore is 5 mm. FLAG_FOR_REVIEW", Demands())
    assert verdict.issues == ("it asks for a person: FLAG_FOR_REVIEW",)
    assert (verdict.score, verdict.passed) == (1.0, True)
    assert judged("Please review it.", Demands()).issues == ()


# Agreement


@pytest.mark.parametrize(
    ("one", "other", "output", "demands", "same"),
    [
        ("A", "A", ChoiceOutput(labels=("A", "a")), Demands(), True),
        ("A", "a", ChoiceOutput(labels=("A", "a")), Demands(), False),
        ('{"a":1,"b":2}', '{"b":2.0,"a":1}', FREE, Demands(), True),
        ('{"a":1}', '{"a":true}', FREE, Demands(), False),
        ("It is done.", "it is\n**done**", TEXT, Demands(), True),
        ("It is done.", "It is not done.", TEXT, Demands(), False),
        ("a = 1", "a=1  # one", TEXT, PYTHON, True),
        ("if a:\n  b\nc", "if a:\n  b\n  c", TEXT, PYTHON, False),
        ("SELECT 'A'", "SELECT 'a'", TEXT, SQL, False),
        ("SELECT  a", "SELECT\na", TEXT, SQL, True),
    ],
)
def test_answers_agree_if_they_say_the_same(
    one: str, other: str, output: Output, demands: Demands, same: bool
) -> None:
    assert agreement(one, {"tier1": other, "vetoed": ""}, output, demands) == {"tier1": same}


# Settings


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("threshold = 1.5", "kinds.ask.threshold: Input should be less than or equal to 1 (got"),
        ("threshold = -0.1", "kinds.ask.threshold"),
        ("margin = 2", "kinds.ask.margin"),
        ('language = "cobol"', "kinds.ask.language"),
        ('output = "choice"\nlanguage = "sql"', "language 'sql' is for kinds of text: drop it"),
        ('dialect = "mysql"', "dialect 'mysql' is for language = \"sql\""),
        ('output = "choice"\ngrounded = true', "are for text and JSON: drop them"),
        ('language = "sql"\nrequired_fields = ["A"]', "required_fields are no sql"),
        ('required_fields = ["A:"]', "kinds.ask.required_fields"),
        ("[lanes.one.consensus]\nagree = 0.5\nmembers = ['two']", "lanes.one.consensus.agree"),
        ("[lanes.one.consensus]\nmembers = ['three']", "names 'three', which is no lane"),
        ("[lanes.one.consensus]\nmembers = ['one']", "the lane itself, which votes anyway"),
        ("[lanes.one.consensus]\nmembers = ['two', 'two']", "names a lane twice"),
        ("[lanes.one.consensus]\nmembers = ['two']\nkinds = ['x']", "'x', which is no kind"),
        ("[lanes.one.consensus]\nmembers = []", "lanes.one.consensus.members"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(tmp_path: Path, setting: str, words: str) -> None:
    profile = tmp_path / "profile.toml"
    profile.write_text(
        '[tiers.local]\nrank = 1\n[lanes.one]\ntier = "local"\nmodel = "m"\n'
        '[lanes.two]\ntier = "local"\nmodel = "m"\n[models.m]\nbackend = "scripted"\n'
        '[routing]\nunknown_kind_tier = "local"\ncritic_tier = "local"\n'
        f'[kinds.ask]\ntier = "local"\n{setting}\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        load_catalog(str(profile))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_answers_nested_too_deep_to_be_compared_by_value_are_compared_by_their_words() -> None:
    deep = "[" * 700 + "]" * 700
    assert agreement(deep, {"tier1": deep}, JsonOutput(json_schema={})) == {"tier1": True}
    long = "x = " + "+".join(["1"] * 3000)
    python = Demands(language="python")
    assert agreement(long, {"tier1": long + "+1"}, TextOutput(), python) == {"tier1": False}
