"""What passes the quality check and what climbs: tests of the rubrics."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.demands import Demands
from routing.agreement import PLAIN
from routing.decision import ChoiceOutput, JsonOutput, Output, TextOutput
from routing.quality import Answer, Verdict, check, parse_choice

ACTIONS = ("CONTINUE", "COMPLETE", "SWITCH", "IDLE")
CHOICE = ChoiceOutput(labels=ACTIONS)
TEXT = TextOutput()
PLAN = JsonOutput(
    json_schema={
        "type": "object",
        "required": ["approach", "steps"],
        "properties": {
            "approach": {"type": "string"},
            "steps": {"type": "array", "items": {"type": "string"}},
            "blockers": {"type": "array"},
        },
    }
)
GOOD_PLAN = '{"approach": "sketch first", "steps": ["sketch", "model"]}'


def judged(
    raw: str = "",
    output: Output = TEXT,
    *,
    threshold: float = 0.7,
    critique: bool | None = None,
    demands: Demands = PLAIN,
    **values: Any,
) -> Verdict:
    answer = Answer(raw, **values)
    return check(
        answer, output, threshold=threshold, margin=0.05, critique=critique, demands=demands
    )


# The score


def test_without_a_critic_the_score_is_the_mean_of_the_other_three() -> None:
    verdict = judged("CONTINUE", CHOICE)
    assert (verdict.score, verdict.critique, verdict.passed) == (1.0, None, True)


@pytest.mark.parametrize(("critique", "score"), [(True, 1.0), (False, 0.8)])
def test_a_critic_weighs_a_fifth(critique: bool, score: float) -> None:
    verdict = judged("CONTINUE", CHOICE, critique=critique)
    assert (verdict.score, verdict.critique) == (score, float(critique))
    assert bool(verdict.issues) is not critique


def test_a_score_that_just_reaches_the_threshold_passes() -> None:
    assert judged("CONTINUE", CHOICE, critique=False, threshold=0.8).passed
    assert not judged("CONTINUE", CHOICE, critique=False, threshold=0.81).passed


# Choices


def test_a_choice_with_a_clear_lead_passes() -> None:
    verdict = judged("1", CHOICE, label="SWITCH", probabilities=(0.1, 0.1, 0.7, 0.1))
    assert (verdict.answer, verdict.score, verdict.passed) == ("SWITCH", 1.0, True)


@pytest.mark.parametrize("second", [0.36, 0.375, 0.4])
def test_a_guess_scores_625_and_climbs(second: float) -> None:
    rest = (0.6 - second) / 2
    verdict = judged("x", CHOICE, label="SWITCH", probabilities=(second, rest, 0.4, rest))
    assert (verdict.score, verdict.passed, verdict.vetoes) == (0.625, False, ())
    assert verdict.answer == "SWITCH"
    assert "guess" in verdict.issues[0]


def test_a_one_digit_answer_is_complete() -> None:
    verdict = judged("4", ChoiceOutput(labels=("3", "4")))
    assert (verdict.answer, verdict.score) == ("4", 1.0)


def test_probabilities_that_do_not_fit_the_labels_are_no_lead() -> None:
    verdict = judged("x", CHOICE, label="SWITCH", probabilities=(0.9, 0.1))
    assert verdict.coherence == 0.0
    assert not verdict.passed


@pytest.mark.parametrize(
    ("raw", "label", "words"),
    [
        ("DANCE", None, "'DANCE' does not name exactly one of the labels"),
        ("", "DANCE", "'DANCE' does not name exactly one of the labels"),
        ("CONTINUE or SWITCH", None, "does not name exactly one"),
        ("", None, "the answer is empty"),
        (" \n", None, "the answer is empty"),
        ("I cannot help with that.", None, "the model refuses"),
        ("I cannot help with that. It would be IDLE talk.", None, "the model refuses"),
    ],
)
def test_no_label_of_the_set_is_a_veto(raw: str, label: str | None, words: str) -> None:
    verdict = judged(raw, CHOICE, label=label)
    assert words in verdict.vetoes[0]
    assert (verdict.passed, verdict.answer) == (False, "")


@pytest.mark.parametrize(
    ("raw", "labels", "expected"),
    [
        ("SWITCH", ACTIONS, "SWITCH"),
        (" switch\n", ACTIONS, "SWITCH"),
        ("**Switch**.", ACTIONS, "SWITCH"),
        ("I choose SWITCH, we cannot continue", ACTIONS, "SWITCH"),
        ("either continue or switch", ACTIONS, None),
        ("CONTINUED", ACTIONS, None),
        ("in review", ("review", "in review"), "in review"),
        ("it is in review now", ("review", "in review"), "in review"),
        ("in review, review done", ("review", "in review"), None),
        ("2 hours", ("2", "2 hours", "12 hours"), "2 hours"),
        ("10", ("1", "10"), "10"),
        ("1) because", ("1", "2"), "1"),
        ("1.5", ("1", "5"), None),
        ("-1", ("1", "2"), None),
        ("don't", ("do", "stop"), None),
        ("the answer is A", ("a", "A"), "A"),
        ("C++", ("C", "C++"), "C++"),
        ("a+b", ("a+b", "a"), "a+b"),
        ("", ACTIONS, None),
    ],
)
def test_labels_are_read_out_of_text(
    raw: str, labels: tuple[str, ...], expected: str | None
) -> None:
    assert parse_choice(raw, labels) == expected


@given(
    raw=st.text(),
    labels=st.lists(st.text(min_size=1).map(str.strip).filter(bool), min_size=2, unique=True),
)
def test_a_parsed_choice_is_a_label_or_nothing(raw: str, labels: list[str]) -> None:
    assert parse_choice(raw, labels) in [*labels, None]


@given(st.sampled_from(ACTIONS), st.sampled_from(["{}", "{}.", "Answer: {}", "*{}*", "\n{}\n"]))
def test_a_label_survives_what_models_put_around_it(label: str, around: str) -> None:
    assert parse_choice(around.format(label.lower()), ACTIONS) == label


# Text


@pytest.mark.parametrize(
    "raw",
    [
        "The bracket is done; the drawing follows tomorrow.",
        "I apologize for the delay, the supplier was late.",
        "ok",
        "451.65",
        "```python\nprint(f'{name}')\n```",
        "GET /api/{id} returns the task.",
        "Der Auftrag ist fertig \u2013 danke!",
    ],
)
def test_ordinary_texts_pass_with_full_marks(raw: str) -> None:
    verdict = judged(raw)
    assert (verdict.score, verdict.issues, verdict.answer) == (1.0, (), raw.strip())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("The part is done.<|im_end|>", "<|im_end|>"),
        ("[INST] The part is done.", "[INST]"),
        ("Dear {name}, the part is done.", "{name}"),
        ("Dear {{ user.name }}, the part is done.", "{{ user.name }}"),
        ("Regards, [Your Name]", "[Your Name]"),
        ("```python\nprint(1)", "left open"),
        ("```\n```", "nothing between"),
        ("The part\x00is done.", "unprintable"),
    ],
)
def test_residue_of_markup_fails_the_format_and_climbs(raw: str, words: str) -> None:
    verdict = judged(raw)
    assert (verdict.format, verdict.score, verdict.passed) == (0.0, 0.625, False)
    assert words in verdict.issues[0]
    assert verdict.vetoes == ()


def test_a_text_shorter_than_asked_is_not_complete() -> None:
    assert judged("ok", TextOutput(min_chars=10)).completeness == 0.0


def test_a_text_cut_off_by_the_token_limit_is_not_complete() -> None:
    cut = judged("The bracket is done and the", truncated=True)
    assert (cut.completeness, cut.score) == (0.0, 0.75)
    assert not judged("The bracket is done and the", truncated=True, threshold=0.8).passed


def test_a_text_that_the_token_limit_ends_after_a_sentence_is_complete() -> None:
    assert judged("The bracket is done.", truncated=True).completeness == 1.0


@pytest.mark.parametrize(
    "raw",
    [
        "no no no no no no",
        "we wait, we wait, we wait, we wait, we wait,",
        "Check the drawing again.\nCheck the drawing again.\nCheck the drawing again.",
        " ".join(f"the task {n % 3} is in the queue of the {n % 2}" for n in range(12)),
        "hmmmmmmmmmmmmmmmmmmmmmmmm",
        "!!! ??? ### $$$",
        "0 1 0 1 1 0 " * 10,
    ],
)
def test_texts_that_go_round_in_circles_or_hold_no_words_climb(raw: str) -> None:
    verdict = judged(raw)
    assert (verdict.coherence, verdict.passed) == (0.0, False)


def test_an_echo_of_the_question_is_no_answer() -> None:
    prompt = "Write a message to the reviewer about the late drawing."
    assert judged(prompt.upper(), prompt=prompt).coherence == 0.0
    assert judged(f"{prompt} Message:", prompt=prompt).coherence == 0.0
    assert judged("the late drawing", prompt=prompt).coherence == 1.0


def test_a_refusal_is_vetoed() -> None:
    verdict = judged("I cannot help with that.")
    assert (verdict.vetoes, verdict.passed, verdict.answer) == (("the model refuses",), False, "")


# JSON


def test_json_that_holds_to_its_schema_passes_and_comes_back_canonical() -> None:
    verdict = judged(f"\n{GOOD_PLAN} ", PLAN)
    assert (verdict.score, verdict.issues) == (1.0, ())
    assert verdict.answer == '{"approach":"sketch first","steps":["sketch","model"]}'


def test_json_in_a_code_fence_is_unwrapped_at_the_cost_of_half_its_format() -> None:
    verdict = judged(f"```json\n{GOOD_PLAN}\n```", PLAN)
    assert (verdict.format, verdict.score, verdict.passed) == (0.5, 0.8125, True)
    assert json.loads(verdict.answer) == json.loads(GOOD_PLAN)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "the answer is empty"),
        ("sketch first", "not JSON"),
        (f"Here you are: {GOOD_PLAN}", "not JSON"),
        ('{"approach": NaN}', "NaN is not JSON"),
        ("1e999", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("I cannot help with that.", "the model refuses"),
    ],
)
def test_what_is_no_json_is_vetoed(raw: str, words: str) -> None:
    verdict = judged(raw, PLAN)
    assert words in verdict.vetoes[0]
    assert (verdict.passed, verdict.answer) == (False, "")


def test_json_that_was_cut_off_and_closed_is_incomplete() -> None:
    verdict = judged(GOOD_PLAN, PLAN, truncated=True)
    assert (verdict.completeness, verdict.format, verdict.vetoes) == (0.0, 1.0, ())
    assert verdict.issues == ("the token limit cuts it off",)
    assert not judged(GOOD_PLAN, PLAN, truncated=True, threshold=0.8).passed


def test_json_that_the_token_limit_broke_off_is_vetoed_with_the_reason() -> None:
    assert "token limit" in judged(GOOD_PLAN[:20], PLAN, truncated=True).vetoes[0]


def test_a_missing_field_is_named_and_never_passes() -> None:
    verdict = judged('{"approach": "sketch first"}', PLAN)
    assert (verdict.completeness, verdict.format, verdict.passed) == (0.0, 0.0, False)
    assert "'steps' is a required property" in verdict.issues[0]


def test_a_field_of_the_wrong_type_fails_the_format() -> None:
    verdict = judged('{"approach": 1, "steps": ["sketch"]}', PLAN)
    assert (verdict.format, verdict.completeness, verdict.passed) == (0.0, 1.0, False)
    assert verdict.issues[0].startswith("approach: ")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ('{"approach": " ", "steps": ["a"]}', "approach"),
        ('{"approach": "a", "steps": []}', "steps"),
    ],
)
def test_a_required_field_that_says_nothing_climbs(raw: str, name: str) -> None:
    verdict = judged(raw, PLAN)
    assert (verdict.coherence, verdict.passed) == (0.0, False)
    assert verdict.issues == (f"{name} is required but says nothing",)


def test_one_list_may_be_empty_beside_another_that_is_not() -> None:
    both = {**PLAN.json_schema, "required": ["approach", "steps", "blockers"]}
    raw = '{"approach": "a", "steps": ["b"], "blockers": []}'
    assert judged(raw, JsonOutput(json_schema=both)).score == 1.0


def test_a_schema_may_allow_emptiness_in_so_many_words() -> None:
    schema = {"required": ["note"], "properties": {"note": {"type": "string", "minLength": 0}}}
    assert judged('{"note": ""}', JsonOutput(json_schema=schema)).score == 1.0


def test_characters_that_utf8_cannot_hold_stay_escaped() -> None:
    verdict = judged('["\\ud800", "\\u00e9"]', JsonOutput(json_schema={}))
    assert json.loads(verdict.answer.encode()) == ["\ud800", "\u00e9"]


@pytest.mark.parametrize(
    "schema", [{"$ref": "http://127.0.0.1:9/schema"}, {"$ref": "#"}, {"type": "objekt"}]
)
def test_a_schema_that_cannot_be_applied_is_an_issue_and_fetches_nothing(
    schema: dict[str, Any],
) -> None:
    verdict = judged("1", JsonOutput(json_schema=schema))
    assert not verdict.passed
    assert verdict.issues[0].startswith("its schema ")


# All of them


@given(
    raw=st.one_of(st.text(), st.text("`{}[]<|>\"'\\ \n.ab1")),
    output=st.sampled_from([CHOICE, TEXT, PLAN]),
    truncated=st.booleans(),
    critique=st.sampled_from([None, True, False]),
    prompt=st.text(),
)
def test_the_check_never_raises_whatever_the_text(
    raw: str, output: Output, truncated: bool, critique: bool | None, prompt: str
) -> None:
    verdict = judged(raw, output, truncated=truncated, critique=critique, prompt=prompt)
    assert 0 <= verdict.score <= 1
    assert not (verdict.passed and verdict.vetoes)
    assert bool(verdict.answer) is not bool(verdict.vetoes)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=9))
def test_the_json_check_never_raises_whatever_the_value(value: object) -> None:
    judged(json.dumps(value), PLAN)
