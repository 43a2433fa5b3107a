"""What is sent and how refusals are read, where servers differ."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import ValidationError, validate

from config.catalog import BackendName, Dialect, Model, Sampling
from config.demands import Demands
from routing import quality
from routing.decision import JsonOutput
from tests.contract.cases import CHOICE, JSON, SCHEMA, SERVED, TEXT, request
from tests.contract.protocols import Answer
from workers.backends.http_errors import codes_of, refused
from workers.backends.http_questions import cut
from workers.backends.http_refusals import refusal
from workers.backends.http_schema import as_object, is_object, taken_out
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


def test_a_schema_of_no_object_goes_to_openai_inside_one() -> None:
    listed = JsonOutput(json_schema={"type": "array", "items": {"type": "integer"}})
    form = sent(Dialect.OPENAI, listed)["response_format"]["json_schema"]
    assert form["schema"]["properties"] == {"answer": listed.json_schema}
    assert form["strict"] is True
    plain = sent(Dialect.VLLM, listed)["response_format"]["json_schema"]
    assert plain["schema"] == listed.json_schema


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ({"anyOf": [SCHEMA, {"type": "null"}]}, None),
        ({"type": "object", "oneOf": [SCHEMA]}, {"hours": 3}),
        ({"properties": {"hours": {"type": "integer"}}}, {"hours": 3}),
        ({"$ref": "#/$defs/one", "$defs": {"one": {"type": "string"}}}, "é"),
        # A tree: the reference is to the whole, wherever that is.
        ({"type": "array", "items": {"$ref": "#"}}, [[], [[]]]),
        ({"enum": ["a", "b"], "$schema": "https://json-schema.org/draft/2020-12/schema"}, "b"),
    ],
)
def test_a_value_comes_out_of_the_object_as_it_went_in(schema: dict[str, Any], value: Any) -> None:
    whole = as_object(schema)
    assert is_object(whole)
    validate({"answer": value}, whole)
    with pytest.raises(ValidationError):
        validate(value, whole)
    assert json.loads(taken_out(json.dumps({"answer": value}), schema)) == value


def test_what_came_without_the_object_is_left_to_the_check() -> None:
    listed = {"type": "array"}
    for raw in ("[1]", "{}", '{"answer": 1, "more": 2}', '{"answer": [1, 2', "no", "[" * 9999):
        assert taken_out(raw, listed) == raw
    assert taken_out('{"answer": 3}', {"type": "object"}) == '{"answer": 3}'
    assert as_object(SCHEMA) == SCHEMA


@pytest.mark.parametrize("output", [TEXT, CHOICE, JSON], ids=["text", "choice", "json"])
@pytest.mark.parametrize("said", ["", "No.", "```sql\nSELECT 1;\n```", "I cannot help with that."])
def test_no_check_passes_a_refusal(output: Any, said: str) -> None:
    answer = quality.Answer(raw=refusal(said))
    for language in (None, "python", "sql", "json"):
        demands = Demands(language=language)
        verdict = quality.check(
            answer, output, threshold=0, margin=0, critique=None, demands=demands
        )
        assert (verdict.passed, verdict.vetoes) == (False, ("the model refuses",))


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
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 60),
        ({"retry-after": "Wednesday, 21-Oct-15 07:28:00 GMT"}, 60),
        ({"retry-after": "Wed Oct 21 07:28:00 2015"}, 60),
        ({"retry-after": "Wed, 21 Oct 2015 07:26:00 GMT"}, 0),
        ({"retry-after": "Thu, 21 Oct 2055 07:26:00 GMT"}, 86_400),
        # The provider's clock, where it tells it, and not ours.
        (
            {
                "retry-after": "Wed, 21 Oct 2015 08:00:07 GMT",
                "date": "Wed, 21 Oct 2015 08:00:00 GMT",
            },
            7,
        ),
        ({"retry-after": "in a while"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_a_wish_to_be_left_alone_is_read(headers: dict[str, str], seconds: float | None) -> None:
    now = datetime(2015, 10, 21, 7, 27, tzinfo=UTC).timestamp()
    assert refused(429, "slow down", headers, now=lambda: now).retry_after_s == seconds


OPENAI_PACE = (
    "Rate limit reached for gpt-4o in organization org-1 on requests per min (RPM): Limit 3, "
    "Used 3, Requested 1. Please try again in 20s. Visit https://platform.openai.com/account/"
    "rate-limits to learn more. You can increase your rate limit by adding a payment method to "
    "your account at https://platform.openai.com/account/billing."
)
AZURE_PACE = (
    "Requests to the ChatCompletions_Create Operation have exceeded call rate limit of your "
    "current OpenAI S0 pricing tier. Please retry after 26 seconds. Please go here: "
    "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."
)
NO_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information, read https://platform.openai.com/docs/guides/error-codes"
)


@pytest.mark.parametrize("headers", [{}, {"retry-after": "20"}])
@pytest.mark.parametrize(
    ("said", "code"),
    [
        (OPENAI_PACE, "rate_limit_exceeded"),
        (OPENAI_PACE, ""),
        (AZURE_PACE, "429"),
        (AZURE_PACE, "RateLimitReached"),
        ("Slow down, see docs.example.com/quota and https://example.com/billing.", ""),
        ("This would exceed the quota of output tokens per minute", "rate_limit_error"),
    ],
)
def test_an_ordinary_rate_limit_is_no_lack_of_money(
    said: str, code: str, headers: dict[str, str]
) -> None:
    found = refused(429, said, headers, codes_of({"error": {"message": said, "code": code}}))
    assert (found.quota, found.outage, found.retryable) == (False, False, True)


@pytest.mark.parametrize(
    ("status", "said", "body"),
    [
        (429, NO_QUOTA, {"code": "insufficient_quota", "type": "insufficient_quota"}),
        (429, "No.", {"code": None, "type": "insufficient_quota"}),
        (429, NO_QUOTA, {}),
        (400, "No.", {"code": "billing_hard_limit_reached"}),
        (403, "No.", {"type": "error", "error": {"type": "billing_error"}}),
        (400, "Your credit balance is too low", {"error": {"type": "invalid_request_error"}}),
    ],
)
def test_an_account_without_money_is_known_by_its_code_before_its_words(
    status: int, said: str, body: dict[str, object]
) -> None:
    found = refused(status, said, {}, codes_of(body))
    assert (found.quota, found.outage, found.retryable) == (True, True, False)


def test_a_provider_that_says_when_to_come_back_has_not_run_out_of_money() -> None:
    codes = frozenset({"insufficient_quota"})
    assert not refused(429, NO_QUOTA, {"retry-after": "20"}, codes).quota
    assert not refused(429, NO_QUOTA, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}).quota


def test_codes_are_found_wherever_providers_put_them() -> None:
    listed = [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}]
    assert codes_of(listed) == {"resource_exhausted"}
    assert codes_of("no body") == codes_of(None) == frozenset()


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
