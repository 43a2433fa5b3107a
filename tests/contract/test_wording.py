"""What is sent and how refusals are read, where servers differ."""

from __future__ import annotations

from typing import Any

import pytest

from config.catalog import BackendName, Dialect, Model, Sampling
from routing.decision import JsonOutput
from tests.contract.cases import CHOICE, JSON, SCHEMA, SERVED, TEXT, request
from tests.contract.protocols import Answer
from workers.backends.http_errors import refused
from workers.backends.http_questions import cut
from workers.backends.openai_dialects import CUSTOMS, arguments
from workers.backends.openai_schema import is_strict

MODEL = Model(backend=BackendName.OPENAI)


def sent(dialect: Dialect, output: Any, model: Model = MODEL, **drawn: object) -> dict[str, Any]:
    asked = request(output, **drawn)
    return arguments(asked, model, "m", CUSTOMS[dialect], logprobs=CUSTOMS[dialect].logprobs)


@pytest.mark.parametrize("dialect", Dialect)
def test_every_dialect_bounds_the_answer(dialect: Dialect) -> None:
    name = "max_completion_tokens" if dialect is Dialect.OPENAI else "max_tokens"
    assert (sent(dialect, TEXT)[name], sent(dialect, CHOICE)[name]) == (60, 30)


def test_gemini_is_not_sent_what_it_refuses() -> None:
    call = sent(Dialect.GEMINI, CHOICE)
    assert not {"seed", "logprobs", "top_logprobs"} & call.keys()


def test_vllm_holds_a_choice_to_its_labels() -> None:
    body = sent(Dialect.VLLM, CHOICE)["extra_body"]
    assert body == {"structured_outputs": {"choice": list(CHOICE.labels)}}
    assert "extra_body" not in sent(Dialect.OPENAI, CHOICE)


@pytest.mark.parametrize("dialect", Dialect)
def test_a_model_that_thinks_is_left_to_it(dialect: Dialect) -> None:
    thinking = MODEL.model_copy(update={"reasoning_effort": "low"})
    call = sent(dialect, CHOICE, thinking)
    assert "temperature" not in call
    assert 60 in call.values()
    quiet = sent(dialect, CHOICE, MODEL.model_copy(update={"reasoning_effort": "none"}))
    assert quiet["temperature"] == 0
    if dialect in (Dialect.VLLM, Dialect.LLAMA_SERVER):
        switch = {"chat_template_kwargs": {"enable_thinking": False}}
        assert switch.items() <= quiet["extra_body"].items()
    else:
        assert quiet["reasoning_effort"] == "none"


def test_a_schema_that_openai_cannot_enforce_is_sent_without_the_promise() -> None:
    form = sent(Dialect.OPENAI, JSON)["response_format"]["json_schema"]
    assert (form["strict"], form["schema"]) == (True, SCHEMA)
    loose = JsonOutput(json_schema={"type": "object", "required": ["steps"]})
    assert sent(Dialect.OPENAI, loose)["response_format"]["json_schema"]["strict"] is False
    assert "strict" not in sent(Dialect.VLLM, JSON)["response_format"]["json_schema"]


def test_a_schema_of_no_object_is_asked_of_openai_in_words() -> None:
    listed = JsonOutput(json_schema={"type": "array", "items": {"type": "integer"}})
    call = sent(Dialect.OPENAI, listed)
    assert "response_format" not in call
    assert '"type": "array"' in call["messages"][-1]["content"]
    assert "response_format" in sent(Dialect.VLLM, listed)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (SCHEMA, True),
        ({**SCHEMA, "additionalProperties": True}, False),
        ({**SCHEMA, "required": []}, False),
        ({**SCHEMA, "properties": {"hours": {"type": "string", "maxLength": 4}}}, False),
        ({**SCHEMA, "properties": {"hours": {"enum": ["a"]}}}, False),
        ({**SCHEMA, "properties": {"hours": {"type": "array", "items": SCHEMA}}}, True),
        ({**SCHEMA, "properties": {"hours": {"type": "array", "items": {}}}}, False),
        ({**SCHEMA, "properties": {"hours": {"anyOf": [{"type": "null"}, SCHEMA]}}}, True),
        (True, False),
    ],
)
def test_only_openais_subset_is_strict(schema: Any, strict: bool) -> None:
    assert is_strict(schema) is strict


def test_gemini_tells_a_pause_from_a_quota() -> None:
    said = "You exceeded your current quota [{'@type': 'RetryInfo', 'retryDelay': '37s'}]"
    soon, later = refused(429, said, {}), refused(429, "You exceeded your current quota", {})
    assert (soon.quota, soon.retryable, soon.retry_after_s) == (False, True, 37)
    assert (later.quota, later.retryable, later.retry_after_s) == (True, False, None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_a_wish_to_be_left_alone_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert refused(429, "slow down", headers).retry_after_s == seconds


def test_stops_before_any_text_do_not_count() -> None:
    assert cut("\n\nFirst.\nSecond.", ("\n",)) == "First."
    assert cut("No stop. ", ("\n", "---")) == "No stop."
    assert cut("", ("\n",)) == ""


def test_ollama_is_told_how_long_a_context_and_how_long_to_keep() -> None:
    case = next(case for case in SERVED if case.name == "ollama")
    model = case.model().model_copy(update={"keep_alive_s": -1, "remote_name": "standin"})
    with case.opened(lambda asked: Answer("fine")) as (_, standin):
        backend = case.open("standin", model, case.provider(standin.url))
        list(backend.answer([request(TEXT, stops=("a", "b"), temperature=0.5)]))
        backend.close()
    body = standin.asked[0].body
    assert (body["keep_alive"], body["think"], body["stream"]) == (-1, False, False)
    assert (body["truncate"], body["shift"]) == (False, False)
    assert body["options"]["num_ctx"] == 4096
    assert body["options"]["stop"] == ["a", "b"]
    assert body["model"] == "standin:latest"
    assert Sampling(temperature=0.5).temperature == body["options"]["temperature"]
