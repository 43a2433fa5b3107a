"""The gateway through the official client and through bare HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from ledger import lookup
from ledger.database import open_ledger
from routing.decision import Status
from tests.integration.gateways import Gateway, serving
from tests.integration.stacks import wait_until

PARIS = "Paris is the capital of France, and has been for more than a thousand years."
ASKED = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class City(BaseModel):
    """A city and how many live there."""

    city: str
    people: int


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(tmp_path_factory.mktemp("gateway"), "--max-body-mib", "1") as found:
        yield found


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def chat(client: Any, *messages: Any, **more: Any) -> Any:
    given = {"model": "auto", "messages": list(messages) or ASKED} | more
    return client.chat.completions.create(**given)


def status_of(gateway: Gateway, decision_id: str) -> Status | None:
    engine = open_ledger(gateway.settings)
    try:
        [found] = lookup.find(engine, [decision_id])
    finally:
        engine.dispose()
    return None if found.settled is None else found.settled.status


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_a_chat_is_answered_and_says_who_did(gateway: Gateway, client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=ASKED)  # type: ignore[arg-type]
    found = raw.parse()
    assert found.choices[0].message.content == PARIS
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens > 0
    headers = {name: raw.headers[f"x-uptier-{name}"] for name in
               ("status", "tier", "lane", "model", "attempts", "cost-usd", "run")}  # fmt: skip
    assert headers == {
        "status": "accepted", "tier": "local_fast", "lane": "tier1", "model": "fast",
        "attempts": "1", "cost-usd": "0.000000", "run": gateway.run,
    }  # fmt: skip
    assert found.model == "fast"
    assert status_of(gateway, raw.headers["x-uptier-decision"]) is Status.ACCEPTED


def test_a_stream_is_the_same_answer_in_pieces(client: OpenAI) -> None:
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    pieces = [c.choices[0].delta.content for c in chunks if c.choices]
    assert "".join(piece or "" for piece in pieces) == PARIS
    assert len([piece for piece in pieces if piece]) > 1
    *_, last, usage = chunks
    assert last.choices[0].finish_reason == "stop"
    assert last.uptier["lane"] == "tier1"
    assert (usage.choices, usage.usage.total_tokens > 0) == ([], True)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_text_that_nothing_can_replace_is_told_as_it_is_written(
    gateway: Gateway, client: OpenAI
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="dear", messages=[{"role": "user", "content": "Speak slowly."}], stream=True
    )
    assert "x-uptier-status" not in raw.headers  # they went out before it was known
    pieces, open_at_first = [], None
    for chunk in raw.parse():
        piece = chunk.choices[0].delta.content
        if piece and open_at_first is None:
            open_at_first = status_of(gateway, raw.headers["x-uptier-decision"]) is None
        pieces.append(piece or "")
    assert open_at_first
    assert "".join(pieces) == (
        "Word by word this answer comes, and nobody can take any of it back."
    )
    assert len([piece for piece in pieces if piece]) > 2
    assert chunk.to_dict()["uptier"]["status"] == "accepted"


def test_a_tool_is_called_and_its_result_is_answered(client: OpenAI) -> None:
    question = user("What is the weather in Oslo?")
    first = chat(client, question, tools=[WEATHER]).choices[0]
    [call] = first.message.tool_calls
    assert (first.finish_reason, call.function.name) == ("tool_calls", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "It is sunny"}
    again = chat(client, user("How is it in Norway?"), first.message.to_dict(), result,
                 tools=[WEATHER])  # fmt: skip
    assert again.choices[0].message.content == "It is sunny in Oslo today."


def test_a_tool_is_called_in_a_stream(client: OpenAI) -> None:
    chunks = list(chat(client, user("What is the weather in Oslo?"), tools=[WEATHER], stream=True))
    [call] = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or []]
    assert (call.index, call.function.name) == (0, "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_json_holds_to_the_schema_of_a_class(client: OpenAI) -> None:
    found = client.chat.completions.parse(
        model="auto", messages=[{"role": "user", "content": "A city, not on Mars?"}],
        response_format=City,
    )  # fmt: skip
    assert found.choices[0].message.parsed == City(city="Paris", people=2_100_000)


def test_a_kind_with_labels_answers_with_one_of_them(client: OpenAI) -> None:
    by_kind = chat(client, user("easy"), extra_body={"uptier": {"kind": "question"}})
    assert by_kind.choices[0].message.content in ("A", "B")
    wishes = {"kind": "mood", "choices": ["glad", "sad"], "privacy": "maximum"}
    by_choice = chat(client, user("easy"), extra_body={"uptier": wishes})
    assert by_choice.choices[0].message.content in ("glad", "sad")


def test_a_doubtful_answer_climbs_and_the_headers_say_so(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "this is hard"}],
        extra_headers={"x-uptier-kind": "question"},
    )  # fmt: skip
    assert (raw.headers["x-uptier-lane"], raw.headers["x-uptier-climbs"]) == ("tier2", "1")
    assert raw.headers["x-uptier-attempts"] == "2"


@pytest.mark.parametrize(
    ("name", "lane"),
    [("local_quality", "tier2"), ("tier2", "tier2"), ("quality", "tier2"), ("dear", "tier3")],
)
def test_a_tier_a_lane_or_a_model_is_asked_by_name(client: OpenAI, name: str, lane: str) -> None:
    found = chat(client, user("Anything new?"), model=name)
    assert found.to_dict()["uptier"]["lane"] == lane


def test_a_prompt_is_completed_whole_and_as_a_stream(client: OpenAI) -> None:
    given: dict[str, Any] = {"model": "auto", "prompt": "Name the capital of France:"}
    assert client.completions.create(**given).choices[0].text == PARIS
    chunks = list(client.completions.create(**given, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == PARIS
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_models_are_auto_tiers_lanes_and_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[:4] == ["auto", "local_fast", "local_quality", "cloud"]
    assert {"tier1", "slow", "fast", "dear"} <= set(names)
    assert client.models.retrieve("tier2").to_dict()["uptier"] == {
        "is": "lane", "lanes": ["tier2"], "local": True,
    }  # fmt: skip
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-none")


def test_embeddings_are_refused_in_so_many_words(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gives embeddings"):
        client.embeddings.create(model="auto", input="anything")


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        chat(client, model="gpt-none")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    assert "local_fast" in error.value.message


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"temperature": 9}, "temperature"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"uptier": {"privcy": "high"}}}, "uptier.privcy"),
        ({"extra_body": {"uptier": {"privacy": "hgih"}}}, "uptier.privacy"),
        ({"extra_body": {"uptier": {"deadline_s": -1}}}, "uptier.deadline_s"),
        ({"extra_body": {"uptier": {"payer": {"name": "x"}}}}, "uptier.payer"),
        ({"extra_headers": {"x-uptier-privcy": "high"}}, "x-uptier-privcy"),
    ],
)
def test_a_wrong_field_is_named(client: OpenAI, more: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, **more)
    assert error.value.param == param
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "no JSON"),
        (b"[]", "object"),
        (b"", "no JSON"),
        (b'{"model": NaN}', "NaN"),
        (b"[" * 100_000, "no JSON"),
        (b'{"model": "auto", "messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        (b"\xff\xfe", "no JSON"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(gateway: Gateway, body: bytes, word: str) -> None:
    with gateway.http() as http:
        found = http.post("/v1/chat/completions", content=body)
    assert found.status_code == 400
    error = found.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "body")
    assert word in error["message"]


def test_a_body_that_is_too_long_is_refused_however_it_is_sent(gateway: Gateway) -> None:
    long = b'{"model": "auto", "messages": "' + b"x" * (2 << 20) + b'"}'
    with gateway.http() as http:
        announced = http.post("/v1/chat/completions", content=long)
        chunked = http.post("/v1/chat/completions", content=iter([long[: 1 << 19]] * 8))
    assert [announced.status_code, chunked.status_code] == [413, 413]
    assert chunked.json()["error"]["code"] == "request_too_large"


def test_a_prompt_that_no_model_can_take_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="200,000"):
        chat(client, user("x" * 200_001))


def test_paths_and_methods_that_are_not_served_are_told_in_the_same_shape(gateway: Gateway) -> None:
    with gateway.http() as http:
        nowhere, wrong = http.get("/v1/nowhere"), http.get("/v1/chat/completions")
        assert http.get("/metrics").status_code == 404  # nobody asked for it
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, "message" in wrong.json()["error"]) == (405, True)


def test_what_nobody_can_answer_is_a_bad_gateway(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        chat(client, user("nobody can say"))
    assert (error.value.status_code, error.value.code) == (502, "no_answer")
    assert error.value.response.headers["x-should-retry"] == "false"
    assert error.value.response.headers["x-uptier-status"] == "dead"


def test_a_deadline_that_passes_is_a_timeout(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        chat(client, model="slow", extra_body={"uptier": {"deadline_s": 1}})
    assert (error.value.status_code, error.value.code) == (504, "deadline_passed")


def test_a_page_of_the_web_is_not_served_without_keys(gateway: Gateway) -> None:
    with gateway.http() as http:
        rebound = http.get("/v1/models", headers={"host": "evil.example"})
        posted = http.post("/v1/completions", json={}, headers={"origin": "https://evil.example"})
        own = http.get("/v1/models", headers={"origin": "http://localhost:3000"})
    assert [rebound.status_code, posted.status_code, own.status_code] == [403, 403, 200]


def test_who_leaves_while_waiting_has_his_decision_cancelled(gateway: Gateway) -> None:
    body = {"model": "slow", "messages": [user("left alone")]}
    with gateway.http() as http, pytest.raises(httpx2.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=1)
    [asked] = [d for d in listed(gateway) if d["state"] != "settled" or d["status"] == "cancelled"]
    wait_until(lambda: status_of(gateway, asked["id"]) is Status.CANCELLED)


def test_who_leaves_in_mid_stream_has_his_decision_cancelled(gateway: Gateway) -> None:
    body = {"model": "slow", "messages": [user("left in mid-stream")], "stream": True}
    with gateway.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        asked = answer.headers["x-uptier-decision"]
        lines = answer.iter_lines()  # the connection is closed with it
        assert "assistant" in next(lines)
        assert status_of(gateway, asked) is None
    wait_until(lambda: status_of(gateway, asked) is Status.CANCELLED)


def test_a_decision_with_a_key_goes_on_without_its_client(gateway: Gateway) -> None:
    body = {"model": "slow", "messages": [user("kept")]}
    headers = {"idempotency-key": "kept-1"}
    with gateway.http() as http:
        with pytest.raises(httpx2.ReadTimeout):
            http.post("/v1/chat/completions", json=body, headers=headers, timeout=1)
        found = http.post("/v1/chat/completions", json=body, headers=headers, timeout=60)
        again = http.post("/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert (found.status_code, found.json()["id"]) == (200, again.json()["id"])


def listed(gateway: Gateway) -> list[dict[str, Any]]:
    with gateway.http() as http:
        found = http.get("/v1/decisions", params={"limit": 1000}).json()
    assert found["has_more"] is False
    data: list[dict[str, Any]] = found["data"]
    return data


def test_decisions_are_asked_as_they_are_and_looked_up(gateway: Gateway) -> None:
    with gateway.http() as http:
        one = http.post("/v1/decisions", json={"kind": "question", "prompt": "easy"})
        assert one.json()["answer"] in ("A", "B")
        assert one.headers["x-uptier-decision"] == one.json()["id"]
        many = [{"kind": "question", "prompt": f"hard {i}", "key": f"many-{i}"} for i in range(20)]
        found = http.post("/v1/decisions", json={"decisions": many}).json()["data"]
        assert [d["key"] for d in found] == [f":many-{i}" for i in range(20)]
        assert {(d["status"], d["lane"], d["attempts"]) for d in found} == {
            ("accepted", "tier2", 2)
        }
        story = http.get(f"/v1/decisions/{found[3]['id']}").json()
        assert [a["lane"] for a in story["attempt_list"]] == ["tier1", "tier2"]
        assert story["plan"]["hops"][0]["lane"] == "tier1"
        page = http.get("/v1/decisions", params={"limit": 5, "after": found[0]["id"]}).json()
        assert [d["id"] for d in page["data"]] == [d["id"] for d in found[1:6]]
        assert page["has_more"] is True


def test_of_decisions_among_which_one_cannot_be_asked_none_is(gateway: Gateway) -> None:
    sound = {"kind": "all_or_none", "prompt": "x", "text": True, "model": "slow"}
    with gateway.http() as http:
        found = http.post("/v1/decisions", json={"decisions": [sound, sound | {"preset": "none"}],
                                                 "wait": False})  # fmt: skip
        assert found.status_code == 400

        def ends() -> list[Any]:
            data = http.get("/v1/decisions", params={"limit": 1000}).json()["data"]
            return [one["status"] for one in data if one["kind"] == "all_or_none"]

        wait_until(lambda: ends() in ([], ["cancelled"]))


def test_decisions_can_be_left_and_waited_for_later(gateway: Gateway) -> None:
    with gateway.http() as http:
        left = http.post("/v1/decisions", json={"kind": "q", "prompt": "later", "text": True,
                                                "wait": False})  # fmt: skip
        assert (left.status_code, left.json()["state"]) == (202, "queued")
        found = http.get(f"/v1/decisions/{left.json()['id']}", params={"wait": True}).json()
        assert (found["state"], found["status"]) == ("settled", "accepted")
        slow = http.post("/v1/decisions", json={"kind": "q", "prompt": "x", "text": True,
                                                "model": "slow", "wait": False}).json()  # fmt: skip
        ended = http.post(f"/v1/decisions/{slow['id']}/cancel").json()
        assert ended["status"] == "cancelled"
        assert http.get("/v1/decisions/nosuch").status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "x"}, "kind"),
        ({"kind": "question"}, "prompt"),
        ({"decisions": []}, "decisions"),
        ({"decisions": [{"kind": "question", "prompt": "x"}, {"kind": "question"}]}, "prompt"),
        ({"kind": "question", "prompt": "x", "choices": ["A"]}, "uptier.choices.labels"),
        ({"kind": "question", "prompt": "x", "nonsense": 1}, "uptier.nonsense"),
        ({"kind": "question", "prompt": "x", "wait": "no"}, "wait"),
        ({"kind": "question", "prompt": "x", "model": "none"}, "model"),
    ],
)
def test_a_decision_that_cannot_be_is_refused(
    gateway: Gateway, body: dict[str, Any], param: str
) -> None:
    with gateway.http() as http:
        found = http.post("/v1/decisions", json=body)
    assert found.status_code == (404 if param == "model" else 400)
    assert found.json()["error"]["param"] == param


def test_sixty_four_clients_at_once_are_all_answered(gateway: Gateway) -> None:
    async def one(client: AsyncOpenAI, number: int) -> str | None:
        wishes = {"uptier": {"choices": [f"yes {number}", f"no {number}"]}}
        found = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": f"client {number}"}],
            extra_body=wishes,
        )  # fmt: skip
        return found.choices[0].message.content

    async def all_of_them() -> list[str | None]:
        url = f"{gateway.url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(one(client, i) for i in range(64) for _ in range(3)))

    found = asyncio.run(all_of_them())
    assert [answer and answer.split()[1] for answer in found] == [
        str(i) for i in range(64) for _ in range(3)
    ]
    with gateway.http() as http:
        assert http.get("/health").json() == {"status": "ok", "under_way": 0}
