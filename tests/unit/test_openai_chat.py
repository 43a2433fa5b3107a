"""OpenAI's chat requests as decisions, and settlements as chat completions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from config.errors import InputError
from ledger.taken import Usage
from producers.openai_chat import (
    MOST_TOKENS,
    NEXT_TURN,
    TOOLS_TEMPLATE,
    completion_body,
    decision_of,
    failure_of,
    model_names,
)
from producers.openai_faults import RequestFault
from producers.openai_messages import GOES_ON
from producers.openai_text import decision_of_prompt, text_body
from routing.decision import (
    MAX_PROMPT_CHARS,
    ChoiceOutput,
    Decision,
    JsonOutput,
    Preferences,
    Privacy,
    Settled,
    Status,
    TextOutput,
)
from routing.policy import plan
from routing.structured import check_json
from tests.unit.catalogs import catalog

USER = {"role": "user", "content": "Which way is north?"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's weather",
        "parameters": {
            "type": "object",
            "properties": {"place": {"$ref": "#/$defs/place"}},
            "required": ["place"],
            "$defs": {"place": {"type": "string"}},
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}


def test_an_answer_with_half_a_character_can_be_sent() -> None:
    call = '{"name": "time", "arguments": {"place": "\\ud83d"}}'
    for answer in (call, '{"content": "so \\ud83d it is"}'):
        body = completion_body(
            asked(tools=[TIME]), settled_as(answer), Usage(), created=1, model="m"
        )  # fmt: skip
        json.dumps(body, ensure_ascii=False).encode()
    [sent] = completion_body(
        asked(tools=[TIME]), settled_as(call), Usage(), created=1, model="m"
    )["choices"][0]["message"]["tool_calls"]  # fmt: skip
    assert json.loads(sent["function"]["arguments"]) == {"place": "\ud83d"}


def test_an_answer_of_brackets_alone_stays_what_it_is() -> None:
    answer = "[" * 100_000
    body = completion_body(asked(tools=[TIME]), settled_as(answer), Usage(), created=1, model="m")
    assert body["choices"][0]["message"]["content"] == answer


def settled_as(answer: str) -> Settled:
    return Settled(id="1", key="k", kind="chat", status=Status.DEGRADED, answer=answer)


def asked(*messages: dict[str, Any], **fields: Any) -> Decision:
    body = {"model": "auto", "messages": list(messages) or [USER], **fields}
    return decision_of(body, catalog=catalog(), key="k")


def refused(**fields: Any) -> RequestFault:
    with pytest.raises(RequestFault) as caught:
        asked(**fields)
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)
    return caught.value


def schema_of(decision: Decision) -> dict[str, Any]:
    assert isinstance(decision.output, JsonOutput)
    return decision.output.json_schema


def settled(answer: str, status: Status = Status.ACCEPTED, lane: str | None = "tier1") -> Settled:
    return Settled(
        id="d" * 32, key="k", kind="chat", status=status, answer=answer, lane=lane, reason="why"
    )


def test_a_single_question_is_the_prompt_as_it_stands() -> None:
    found = asked({"role": "system", "content": "Be brief."}, USER)
    assert (found.system, found.prompt) == ("Be brief.", USER["content"])
    assert found.output == TextOutput(max_tokens=MOST_TOKENS, stops=())


def test_a_longer_conversation_begins_with_all_of_a_shorter_one() -> None:
    turns = [USER, {"role": "assistant", "content": "Up."}, {"role": "user", "content": "Sure?"}]
    more = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]
    short, long = asked(*turns), asked(*turns, *more)
    assert short.prompt == "User: Which way is north?\n\nAssistant: Up.\n\nUser: Sure?"
    assert long.prompt.startswith(short.prompt)
    assert short.system == long.system == GOES_ON
    assert isinstance(short.output, TextOutput)
    assert short.output.stops == (NEXT_TURN,)


def test_instructions_in_front_come_first_and_later_ones_stay_in_their_place() -> None:
    found = asked(
        {"role": "developer", "content": "One."},
        {"role": "system", "content": [{"type": "text", "text": "Two."}]},
        USER,
        {"role": "system", "content": "Three."},
    )
    assert found.system == f"One.\n\nTwo.\n\n{GOES_ON}"
    assert found.prompt.endswith("System: Three.")


def test_calls_and_their_results_are_part_of_the_conversation() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "time", "arguments": '{"at": 1}'}}
    found = asked(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "noon"},
    )
    assert '{"name": "time", "arguments": {"at": 1}}' in found.prompt
    assert found.prompt.endswith("Tool: noon")


def test_how_it_is_drawn_goes_into_the_output() -> None:
    found = asked(max_tokens=7, temperature=0, top_p=0.5, stop=["END"], seed=3)
    assert found.output == TextOutput(max_tokens=7, temperature=0, top_p=0.5, stops=("END",))
    assert found.seed == 3


def test_labels_and_hints_are_ignored_and_what_is_as_usual_is_fine() -> None:
    usual = {"n": 1, "logprobs": False, "presence_penalty": 0.0, "logit_bias": {}, "tools": None}
    assert asked(user="ann", metadata={"a": "b"}, reasoning_effort="low", **usual) == asked()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"functions": [{}]}, "functions"),
        ({"top_k": 40}, "top_k"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"model": "gpt-9"}, "model"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "user", "content": "x" * (MAX_PROMPT_CHARS + 1)}]}, "messages"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 1}}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "json_object"}, "stop": "x"}, "stop"),
        ({"tools": [{"type": "web"}]}, "tools[0].type"),
        ({"tools": [TIME, TIME]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "\ud800"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": "maybe"}, "tool_choice"),
        (
            {"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
        ),
        ({"tools": [TIME], "response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_what_cannot_be_served_is_named(fields: dict[str, Any], param: str) -> None:
    fault = refused(**fields)
    assert fault.param == param
    assert str(fault).startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("model", "lane"),
    [("auto", "tier2"), ("local_fast", "tier1"), ("tier2.math", "tier2.math"), ("gpt",
     "tier3.openai"), ("small", "tier1")],
)  # fmt: skip
def test_a_model_is_where_the_decision_starts(model: str, lane: str) -> None:
    assert plan(asked(model=model), catalog(), ()).lanes[0] == lane
    assert model in model_names(catalog())


def test_other_wishes_stay() -> None:
    wishes = Preferences(privacy=Privacy.HIGH, force_tier="cloud")
    body = {"model": "tier1", "messages": [USER]}
    found = decision_of(body, catalog=catalog(), key="k", preferences=wishes).preferences
    assert found == Preferences(privacy=Privacy.HIGH, force_lane="tier1")


def test_json_is_asked_for_by_a_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    assert schema_of(asked(response_format=form)) == schema
    assert schema_of(asked(response_format={"type": "json_object"})) == {"type": "object"}


def test_an_answer_is_a_chat_completion() -> None:
    usage = Usage(12, 3, 8, model="small", tier="local_fast", attempts=2)
    body = completion_body(asked(), settled("Up."), usage, created=17, model="small")
    assert body["choices"][0]["message"]["content"] == "Up."
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == 15
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 8}
    assert (
        body["uptier"] | {"status": "accepted", "tier": "local_fast", "attempts": 2}
        == (body["uptier"])
    )


def test_the_sdk_of_openai_reads_it() -> None:
    from openai.types.chat import ChatCompletion

    decision = asked(tools=[WEATHER])
    answer = '{"name": "weather", "arguments": {"place": "Oslo"}}'
    body = completion_body(decision, settled(answer), Usage(), created=1, model="m")
    found = ChatCompletion.model_validate(body, strict=True)
    [call] = found.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"place": "Oslo"}


def test_what_the_token_limit_ended_says_so() -> None:
    body = completion_body(asked(), settled("Up"), Usage(truncated=True), created=1, model="m")
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("choice", "answer", "holds"),
    [
        ("auto", {"name": "weather", "arguments": {"place": "Oslo"}}, True),
        ("auto", {"name": "time", "arguments": {}}, True),
        ("auto", {"content": "It rains."}, True),
        ("auto", {"name": "weather", "arguments": {"place": 4}}, False),
        ("required", {"content": "It rains."}, False),
        ("required", {"name": "time", "arguments": {}}, True),
        ({"type": "function", "function": {"name": "time"}}, {"name": "time", "arguments": {}},
         True),
        ({"type": "function", "function": {"name": "time"}},
         {"name": "weather", "arguments": {"place": "Oslo"}}, False),
    ],
)  # fmt: skip
def test_functions_are_a_schema_that_their_calls_hold_to(
    choice: Any, answer: dict[str, Any], holds: bool
) -> None:
    decision = asked(tools=[WEATHER, TIME], tool_choice=choice)
    schema = schema_of(decision)
    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid(answer) is holds
    if holds:
        found = check_json(json.dumps(answer), truncated=False, schema=schema)
        assert (found.format, found.completeness, found.coherence) == (1, 1, 1)
    assert "time" in decision.system
    assert decision.template == TOOLS_TEMPLATE


def test_words_instead_of_a_call_are_content() -> None:
    decision = asked(tools=[TIME])
    answer = settled('{"content": "It is late."}')
    body = completion_body(decision, answer, Usage(), created=1, model="m")
    message = body["choices"][0]["message"]
    assert message["content"] == "It is late."
    assert "tool_calls" not in message


def test_forbidden_tools_are_not_mentioned() -> None:
    assert asked(tools=[TIME], tool_choice="none") == asked()


@pytest.mark.parametrize(
    ("status", "answer", "code"),
    [
        (Status.ACCEPTED, "x", None),
        (Status.DEGRADED, "x", None),
        (Status.FALLBACK, "", None),
        (Status.BUDGET, "the best so far", None),
        (Status.BUDGET, "", 429),
        (Status.EXPIRED, "", 504),
        (Status.DEAD, "", 502),
        (Status.CANCELLED, "", 409),
    ],
)
def test_what_has_no_answer_is_an_error(status: Status, answer: str, code: int | None) -> None:
    found = failure_of(settled(answer, status, None))
    assert (found and found[0]) == code


def test_text_completions_are_served_too() -> None:
    body = {"model": "auto", "prompt": ["Once upon a time"], "max_tokens": 9}
    decision = decision_of_prompt(body, catalog=catalog(), key="k")
    assert (decision.system, decision.prompt) == ("", "Once upon a time")
    found = text_body(settled("there was"), Usage(4, 2), created=1, model="m")
    assert (found["object"], found["choices"][0]["text"]) == ("text_completion", "there was")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "messages": [USER]}, "messages"),
    ],
)
def test_text_completions_refuse_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestFault) as caught:
        decision_of_prompt({"model": "auto", **fields}, catalog=catalog(), key="k")
    assert caught.value.param == param


def test_a_choice_is_not_what_a_chat_asks_for() -> None:
    assert not isinstance(asked().output, ChoiceOutput)
