"""What every served backend gives: choices, text, JSON, and what they cost."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from routing.decision import ChoiceOutput, JsonOutput, Output
from routing.refusals import refuses
from tests.contract.cases import CHOICE, JSON, PRICE, PROMPT, SCHEMA, SYSTEM, TEXT, Case, ask
from tests.contract.protocols import Answer
from tests.contract.standins import Fault

SURE = Answer("YIELD", {"YIELD": 0.72, "INSIST": 0.09, "WAIT": 0.09, "The": 0.1})


def test_a_choice_has_a_probability_for_each_label_or_speaks_for_itself(case: Case) -> None:
    answer = SURE
    if case.name == "llama_server":
        answer = replace(SURE, likely={"YIELD": 0.72, "INSIST": 0.09, "WAIT": 0.09})
    with case.opened(lambda asked: answer) as (backend, _):
        assert backend.capabilities.probabilities is case.probabilities
        found = ask(backend, CHOICE)
    assert found.error is None
    assert found.raw == "YIELD"
    if not case.probabilities:
        assert (found.label, found.probabilities, found.mass) == (None, None, None)
        return
    assert found.label == "YIELD"
    assert found.probabilities == pytest.approx((0.8, 0.1, 0.1), abs=1e-3)
    assert found.mass == (pytest.approx(0.9, abs=1e-3) if case.mass else None)


def test_no_probabilities_are_made_up(case: Case) -> None:
    silent = Answer("YIELD")
    if case.name == "llama_server":
        pytest.skip("it always gives them")
    with case.opened(lambda asked: silent) as (backend, _):
        found = ask(backend, CHOICE)
    assert (found.raw, found.label, found.probabilities) == ("YIELD", None, None)


def test_labels_that_begin_one_another_are_told_apart_or_left_to_the_text(case: Case) -> None:
    labels = ChoiceOutput(labels=("GO", "GO HOME", "STAY"))
    with case.opened(lambda asked: Answer("GO", {"GO": 0.5, "GO HOME": 0.2, "STAY": 0.3})) as (
        backend,
        _,
    ):
        found = ask(backend, labels)
    assert found.error is None
    assert found.raw == "GO"
    if case.name == "llama_server":  # the only one that is told of tokens, not of texts
        assert found.probabilities == pytest.approx((0.5, 0.2, 0.3), abs=1e-3)
    else:
        assert found.probabilities is None


def test_a_text_ends_at_its_first_stop_whatever_the_server_took(case: Case) -> None:
    stops = ("A1", "A2", "A3", "A4", "A5", "---")
    with case.opened(lambda asked: Answer("\nShe yields.A5 And more.---")) as (backend, standin):
        found = ask(backend, TEXT, stops=stops, temperature=0.4)
    assert found.error is None
    assert found.raw == "She yields."
    assert not found.truncated
    sent = standin.asked[0].body
    if case.name in ("openai", "gemini"):
        assert len(sent["stop"]) == 4


def test_a_text_that_the_limit_ended_says_so(case: Case) -> None:
    with case.opened(lambda asked: Answer("She yields bec", cut_off=True)) as (backend, _):
        assert ask(backend, TEXT).truncated


def test_a_text_whose_stop_only_uptier_knew_is_whole_though_the_limit_ended_it(case: Case) -> None:
    stops = ("A1", "A2", "A3", "A4", "---")
    long = Answer("She yields.---And on and", cut_off=True)
    with case.opened(lambda asked: long) as (backend, _):
        found = ask(backend, TEXT, stops=stops)
    assert (found.raw, found.truncated) == ("She yields.", False)


def test_json_of_no_object_is_asked_for_and_comes_as_it_should(case: Case) -> None:
    listed = JsonOutput(json_schema={"type": "array", "items": {"type": "integer"}})
    inside = case.name in ("openai", "anthropic")
    with case.opened(lambda asked: Answer('{"answer": [3, 4]}' if inside else "[3, 4]")) as (
        backend,
        standin,
    ):
        found = ask(backend, listed)
    assert (found.error, json.loads(found.raw)) == (None, [3, 4])
    assert json.dumps(listed.json_schema) in json.dumps(standin.asked[0].body)
    if case.name == "anthropic":
        assert standin.asked[0].body["tools"][0]["input_schema"]["type"] == "object"


@pytest.mark.parametrize("output", [TEXT, CHOICE, JSON], ids=["text", "choice", "json"])
def test_a_refusal_that_only_a_field_tells_counts_and_is_billed(case: Case, output: Output) -> None:
    if case.name == "anthropic":
        refused = Answer('{"hours": 3}' if output is JSON else "YIELD", reason="refusal")
    elif case.path == "/v1":
        refused = Answer("YIELD", {"YIELD": 1.0}, refusal="No, not that.")
    else:
        pytest.skip("it has no such field")
    with case.opened(lambda asked: refused) as (backend, _):
        found = ask(backend, output)
    assert (found.error, found.label, found.truncated) == (None, None, False)
    assert refuses(found.raw)
    assert "YIELD" not in found.raw
    assert found.cost_micros == (PRICE.micros(100, 5) if case.paid else 0)


def test_what_a_filter_cut_off_is_refused_unless_its_end_had_come(case: Case) -> None:
    if case.path != "/v1":
        pytest.skip("it has no such word")
    with case.opened(lambda asked: Answer("First.\nSecond.", reason="content_filter")) as (
        backend,
        _,
    ):
        cut_off, whole = ask(backend, TEXT), ask(backend, TEXT, stops=("\n",))
    assert refuses(cut_off.raw)
    assert (whole.raw, whole.truncated) == ("First.", False)


def test_json_is_asked_for_by_its_schema(case: Case) -> None:
    with case.opened(lambda asked: Answer('{"hours": 3}')) as (backend, standin):
        found = ask(backend, JSON, stops=("3",))
    assert found.error is None
    assert json.loads(found.raw) == {"hours": 3}
    assert json.dumps(SCHEMA) in json.dumps(standin.asked[0].body)


def test_the_constant_part_comes_first(case: Case) -> None:
    with case.opened(lambda asked: SURE) as (backend, standin):
        ask(backend, CHOICE)
        ask(backend, TEXT, system="")
    first, second = standin.asked[0], standin.asked[-1]
    assert first.system == SYSTEM
    assert first.prompt.startswith(PROMPT)
    assert (second.system, second.prompt) == ("", PROMPT)


def test_an_answer_brings_its_tokens_and_its_cost(case: Case) -> None:
    answer = Answer("She yields.", tokens_in=100, tokens_out=7)
    if case.cache:
        answer = replace(answer, cached=40, written=20 if case.paid else 0)
    with case.opened(lambda asked: answer) as (backend, _):
        found = ask(backend, TEXT)
        most = backend.most_micros
    assert found.tokens_in == 100 + answer.cached + answer.written
    assert (found.tokens_out, found.tokens_cached) == (7, answer.cached)
    assert found.inference_s > 0
    priced = PRICE.micros(100, 7, answer.cached, answer.written)
    assert found.cost_micros == (priced if case.paid else 0)
    assert callable(most)


def test_thoughts_that_only_the_total_counts_are_billed_where_that_is_the_custom(
    case: Case,
) -> None:
    if case.path != "/v1":
        pytest.skip("it tells no total")
    with case.opened(lambda asked: Answer("She yields.", tokens_out=7, thoughts=900)) as (
        backend,
        _,
    ):
        found = ask(backend, TEXT)
    written = 907 if case.name == "gemini" else 7
    assert found.tokens_out == written
    assert found.cost_micros == (PRICE.micros(100, written) if case.paid else 0)


def test_no_answer_can_cost_more_than_what_was_reserved_for_it(case: Case) -> None:
    from tests.contract.cases import request

    with case.opened(lambda asked: SURE) as (backend, _):
        plain, schema = backend.most_micros(request(TEXT)), backend.most_micros(request(JSON))
        choice = backend.most_micros(request(CHOICE))
    if not case.paid:
        assert (plain, schema, choice) == (0, 0, 0)
        return
    assert plain >= PRICE.micros(0, 60, 0, len(SYSTEM + PROMPT))
    assert schema > plain > choice


def test_a_model_that_gives_no_log_probabilities_is_asked_without_them_from_then_on() -> None:
    from tests.contract.cases import SERVED

    said = "You are not allowed to request logprobs from this model"
    with SERVED[0].opened(
        lambda asked: Fault(403, "invalid", said) if "logprobs" in asked.body else SURE
    ) as (backend, standin):
        first, second = ask(backend, CHOICE), ask(backend, CHOICE)
        assert not backend.capabilities.probabilities
    assert first.error is not None
    assert (first.error.retryable, first.error.outage) == (True, False)
    assert (second.raw, second.probabilities) == ("YIELD", None)
    assert len(standin.asked) == 2
