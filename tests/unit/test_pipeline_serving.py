"""The specialists over HTTP and as a Python API: a real server over a real ledger."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import producers.asking
from config.errors import InputError
from config.load import load_catalog
from ledger import lifecycle, outbox
from ledger.clock import now
from ledger.records import Planned
from ledger.workers import Life, announce
from producers.pipeline.agent import Agent
from producers.pipeline.caller import Caller, Unanswered
from producers.pipeline.metadata import check_metadata
from producers.pipeline.roster import Roster
from producers.pipeline.serving import bound, make_app
from producers.pipeline.steps import Role
from routing.decision import Settled
from routing.policy import plan
from tests.llama_client import LlamaClient
from tests.unit.house import House
from tests.unit.ledgers import rows
from tests.unit.pipeline_bench import Asker, two

MATH = "Compute the residue of 742846 modulo 125."
TALK = "Write a short message to the team about the release."
BROKEN = '{ contains = "nobody knows", fail = "out of order", retryable = false }'


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path, two('{ contains = "says", answer = "one two\\nthree" }', BROKEN))
    for lane in ("low", "low.math"):
        announce(found.engine, Life(lane, lane, lane), "ready")
    yield found
    found.engine.dispose()


def caller(house: House, **more: Any) -> Caller:
    return Caller(Asker(house), house.engine, house.settings.catalog, **more)


@pytest.fixture
def client(house: House) -> Iterator[LlamaClient]:
    catalog = house.settings.catalog
    sockets = {role: bound(role, 0, catalog) for role in Role}
    ports = {role: one.getsockname()[1] for role, one in sockets.items()}
    roster = Roster(house.engine, catalog, (), now)
    count = iter(range(1000))
    one_at_a_time = threading.Lock()

    class Locked(Waiting):
        def work(self) -> None:
            with one_at_a_time:
                super().work()

    def new_caller(asker: producers.asking.Asker) -> Caller:
        return Caller(asker, house.engine, catalog, prefix=f"{next(count)}.",
                      roster=roster)  # fmt: skip

    app = make_app({port: role for role, port in ports.items()}, roster, Locked(house),
                   new_caller)  # fmt: skip
    config = uvicorn.Config(app, loop="asyncio", http="h11", ws="none", lifespan="off",
                            log_config=None)  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=(list(sockets.values()),))
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield LlamaClient(ports[Role.ORCHESTRATOR], ports[Role.MATH])
    server.should_exit = True
    thread.join(30)


class Waiting:
    """A client's ``submit``, ``wait`` and ``cancel`` over a house; what says ``never`` is not
    answered."""

    def __init__(self, house: House) -> None:
        self.house = house

    def submit(self, decisions: Any) -> list[str]:
        house = self.house
        planned = [Planned(d, plan(d, house.settings.catalog, ())) for d in decisions]
        submission = lifecycle.submit(house.engine, house.run, planned, now())
        if not any("never" in d.prompt for d in decisions):
            outbox.publish(house.engine, submission.messages, house.waiting.append)
        self.work()
        return list(submission.ids)

    def work(self) -> None:
        self.house.work()

    def wait(self, ids: Any) -> list[Settled]:
        while len(found := lifecycle.find_settled(self.house.engine, ids)) < len(ids):
            time.sleep(0.01)
        by_id = {one.id: one for one in found}
        return [by_id[id] for id in ids]

    def cancel(self, ids: Any) -> int:
        return len(lifecycle.cancel(self.house.engine, now(), ids=ids).settled)


def until(holds: Any) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def call(client: LlamaClient, body: dict[str, Any]) -> socket.socket:
    """A call whose answer nobody has read yet."""
    raw = json.dumps(body).encode()
    port = int(client.endpoints["math"].split(":")[2].split("/")[0])
    opened = socket.create_connection(("127.0.0.1", port))
    head = f"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
    opened.sendall(head.encode() + raw)
    return opened


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_question(
    house: House, client: LlamaClient, stream: bool
) -> None:
    with call(client, {"prompt": "never", "stream": stream}):
        until(lambda: rows(house.engine, "decision"))
    until(lambda: rows(house.engine, "decision")[0]["status"] == "cancelled")
    assert client.complete("math", "it says: still there") == "one two\nthree"
    assert len(rows(house.engine, "decision")) == 2


def test_a_client_that_leaves_within_its_body_is_no_error(
    house: House, client: LlamaClient, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(client.endpoints["math"].split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as opened:
        opened.sendall(
            b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
        )
    assert client.complete("math", "it says: still there") == "one two\nthree"
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


def test_questions_under_way_do_not_keep_health_from_being_told(
    house: House, client: LlamaClient
) -> None:
    with ExitStack() as calls:
        for number in range(50):
            calls.enter_context(call(client, {"prompt": f"never {number}"}))
        until(lambda: len(rows(house.engine, "decision")) == 50)
        assert client.health() == {"orchestrator": True, "math": True}
    until(lambda: all(r["status"] == "cancelled" for r in rows(house.engine, "decision")))


def lane_of(house: House, prompt: str) -> str:
    [found] = [row for row in rows(house.engine, "decision") if row["prompt"] == prompt]
    lane: str = found["answer_lane"]
    return lane


def test_each_port_is_its_specialist(house: House, client: LlamaClient) -> None:
    assert client.complete("math", "it says: a") == "one two\nthree"
    assert client.complete("orchestrator", "it says: b") == "one two\nthree"
    assert lane_of(house, "it says: a") == "low.math"
    assert lane_of(house, "it says: b") == "low"
    assert client.tokens == sum(row["tokens_out"] for row in rows(house.engine, "attempt"))


def test_a_completion_has_what_llama_server_gives(client: LlamaClient) -> None:
    body = {"prompt": "it says", "n_predict": 9, "seed": 4, "top_k": 40, "stop": ["x"]}
    status, reply = client.post("math", json.dumps(body).encode())
    assert status == 200
    assert (reply["stop"], reply["stop_type"], reply["model"]) == (True, "eos", "math")
    assert reply["generation_settings"] == {
        "n_predict": 9, "temperature": 0.7, "stop": ["x"], "seed": 4, "stream": False,
    }  # fmt: skip
    assert reply["timings"]["predicted_n"] == reply["tokens_predicted"] > 0
    assert reply["uptier"]["lane"] == "low.math"


def test_what_is_asked_for_reaches_the_decision(house: House, client: LlamaClient) -> None:
    client.complete("math", "it says", n_predict=17, temperature=1.5, seed=3)
    [row] = rows(house.engine, "decision")
    output = json.loads(row["output"])
    assert (output["max_tokens"], output["temperature"]) == (17, 1.5)
    assert output["stops"] == ["</s>", "<|im_end|>", "<|endoftext|>"]
    assert row["seed"] == 3


def test_an_answer_is_no_longer_than_there_is_room_for(house: House, client: LlamaClient) -> None:
    client.complete("math", "it says " * 500, n_predict=-1)
    [row] = rows(house.engine, "decision")
    assert json.loads(row["output"])["max_tokens"] == 2048 - 64 - 8 * 500 // 3


def test_a_stream_is_the_same_text_in_pieces(client: LlamaClient) -> None:
    events = list(client.stream("orchestrator", "it says"))
    assert [e["content"] for e in events] == ["one ", "two\n", "three", ""]
    assert [e["stop"] for e in events] == [False, False, False, True]
    assert events[-1]["tokens_predicted"] > 0


def test_health_is_that_of_the_workers(house: House, client: LlamaClient) -> None:
    assert client.health() == {"orchestrator": True, "math": True}
    announce(house.engine, Life("low.math", "low.math", "low.math"), "stopping")
    assert client.health() == {"orchestrator": True, "math": False}
    url = client.endpoints["math"].replace("completion", "v1/health")
    status, reply = client._open(url)
    assert (status, reply["error"]["message"]) == (503, "no worker serves lane low.math")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "prompt"),
        (b'{"prompt": ""}', "prompt"),
        (b'{"prompt": [1, 2]}', "prompt"),
        (b'{"prompt": "x", "n_predict": 0}', "n_predict"),
        (b'{"prompt": "x", "n_predict": "many"}', "n_predict"),
        (b'{"prompt": "x", "temperature": 3}', "temperature"),
        (b'{"prompt": "x", "temperature": NaN}', "temperature"),
        (b'{"prompt": "x", "stop": [""]}', "stop"),
        (b'{"prompt": "a\\u0000b"}', "prompt"),
        (b'{"prompt": "' + b"x" * (1 << 20) + b'"}', "bytes"),
    ],
)
def test_a_wrong_body_is_refused_in_one_line(
    client: LlamaClient, house: House, body: bytes, says: str
) -> None:
    status, reply = client.post("math", body)
    assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
    assert says in reply["error"]["message"]
    assert "\n" not in reply["error"]["message"]
    assert rows(house.engine, "decision") == []


def test_a_question_that_nobody_can_answer_is_503(client: LlamaClient) -> None:
    status, reply = client.post("math", b'{"prompt": "nobody knows"}')
    assert (status, reply["error"]["type"]) == (503, "unavailable_error")
    [event] = client.stream("math", "nobody knows, as I said")
    assert event["error"]["code"] == 503


def test_a_name_of_another_host_is_turned_away(client: LlamaClient) -> None:
    url = client.endpoints["math"].replace("completion", "health")
    request = urllib.request.Request(url, headers={"Host": "evil.example"})
    assert client._open(request)[0] == 400


def test_a_port_in_use_is_one_line() -> None:
    catalog = load_catalog("tiny")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port-math {port} is in use: give another"):
            bound(Role.MATH, port, catalog)


def test_the_port_of_a_models_own_server_is_left_to_it() -> None:
    with pytest.raises(InputError, match="--port-math 8081 is that of provider math"):
        bound(Role.MATH, 8081, load_catalog("zeus"))


def test_a_caller_routes_by_words_and_keeps_books(house: House) -> None:
    it = caller(house)
    it.route(MATH)
    it.route(TALK)
    it.orchestrate("it says: plan")
    assert it.calculate("it says: sum") == "one two\nthree"
    assert lane_of(house, MATH) == "low.math"
    assert lane_of(house, TALK) == "low"
    books = it.metadata()
    assert (books["orchestrator_calls"], books["math_calls"]) == (2, 2)
    assert [e["model"] for e in books["llm_reasoning_trace"]] == [
        "math", "orchestrator", "orchestrator", "math",
    ]  # fmt: skip
    assert books["llm_reasoning_trace"][0]["query_type"] == "residue_analysis"
    check_metadata({"llm_metadata": books}, "x")
    it.reset()
    assert it.metadata()["llm_reasoning_trace"] == []
    assert it.health_check() == {"orchestrator": True, "math": True}


def test_the_trace_keeps_the_last_ten_calls(house: House) -> None:
    it = caller(house)
    for number in range(12):
        it.route(f"it says: {number}")
    books = it.metadata()
    assert books["orchestrator_calls"] + books["math_calls"] == 12
    assert len(books["llm_reasoning_trace"]) == 10


def test_a_caller_says_when_nobody_answers(house: House) -> None:
    with pytest.raises(Unanswered, match="no answer from orchestrator"):
        caller(house).orchestrate("nobody knows")


def test_an_agent_thinks_calculates_plans_and_finalizes(house: House) -> None:
    agent = Agent(caller(house))
    agent.think("it says: where do we stand?")
    agent.calculate("it says: how much?")
    plan = agent.plan("find the seed")
    assert set(plan) == {"steps", "parameters", "expected_outputs"}
    result = agent.finalize_run({"value": 1, "agent_metadata": {"confidence": 0.9}}, "proceed")
    metadata = result["agent_metadata"]
    assert (result["value"], metadata["confidence"]) == (1, 0.9)
    assert metadata["llm_metadata"]["llm_decision"] == "proceed"
    assert metadata["llm_metadata"]["human_override_requested"] is False
    assert metadata["llm_metadata"]["math_calls"] == 1
    check_metadata(metadata, "x")
    assert agent.finalize_run({})["agent_metadata"]["llm_metadata"]["math_calls"] == 0


def test_an_agents_answer_can_ask_for_a_person(tmp_path: Path) -> None:
    house = House(tmp_path, two('{ contains = "odd", answer = "FLAG_FOR_REVIEW" }'))
    agent = Agent(caller(house))
    agent.think("an odd thing")
    assert agent.finalize_run({})["agent_metadata"]["llm_metadata"]["human_override_requested"]
