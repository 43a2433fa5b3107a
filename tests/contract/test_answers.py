"""What every served backend gives: choices, text, JSON, and what they cost."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from routing.decision import ChoiceOutput
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
