"""Batches on a real ledger: lines in their order, wrong ones by their numbers, going on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError
from ledger import lifecycle, outbox
from ledger.batches import MODE, BatchState, find_batch, outcomes, same_batch, state_of, taken_ids
from ledger.clock import now
from ledger.planning import Planner
from ledger.runs import RunInfo, start_run
from producers.batch import CHUNK, result_of, submit_lines
from producers.batch_lines import MOST_BYTES, Wanted, examine
from routing.decision import Decision, Preferences, Privacy
from tests.unit.house import House
from tests.unit.ledgers import rows

DEEP: dict[str, Any] = {"type": "string"}
for _ in range(400):
    DEEP = {"type": "object", "properties": {"more": DEEP}}

PROFILE = """
[lanes.one]
tier = "low"
model = "fast"
[models.fast]
backend = "scripted"
[models.fast.script]
lines = [
  { contains = "broken", fail = "out of order", retryable = false },
  { contains = "call it", answer = '{"name": "time", "arguments": {}}' },
]
[kinds.pick]
tier = "low"
output = "choice"
labels = ["A", "B"]
"""


class Bench(House):
    """A house with a batch in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, PROFILE)
        self.file = folder / "lines.jsonl"
        self.batch = self.start()
        self.asked = 0
        self.planner = Planner(self.settings, self.engine)

    def start(self) -> RunInfo:
        return start_run(self.engine, mode=MODE, profile=self.settings.profile, now=now(),
                         name="b", config={"sha256": "x", "lines": 0})  # fmt: skip

    def ask(self, decisions: Sequence[Decision]) -> list[str]:  # type: ignore[override]
        self.asked += len(decisions)
        planned = self.planner.plan(decisions)
        written = lifecycle.submit(self.engine, self.batch.id, planned, now())
        outbox.publish(self.engine, written.messages, self.waiting.append)
        return list(written.ids)

    def read(self, *lines: str | bytes, wanted: Wanted | None = None, ask: Any = None) -> None:
        self.file.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
        found = examine(self.file)
        catalog = self.settings.catalog
        submit_lines(
            self.engine, self.batch.id, found, catalog, wanted or Wanted(), ask or self.ask
        )

    def results(self) -> list[dict[str, Any]]:
        found = outcomes(self.engine, self.batch.id, self.settings.catalog)
        return [one for one in map(result_of, found) if one is not None]

    def state(self) -> BatchState:
        return state_of(self.engine, self.batch)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    opened = Bench(tmp_path)
    yield opened
    opened.close()


def chat(name: str, text: str = "Hello?", **body: Any) -> str:
    messages = [{"role": "user", "content": text}]
    return json.dumps(
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "auto", "messages": messages, **body}}
    )  # fmt: skip


def test_results_come_in_the_order_of_the_lines(bench: Bench) -> None:
    names = [f"n{(7 * i) % 250}" for i in range(250)]
    bench.read(*(chat(name) for name in names))
    assert bench.results() == []
    bench.work()
    found = bench.results()
    assert [one["custom_id"] for one in found] == names
    assert {one["response"]["status_code"] for one in found} == {200}
    assert {one["uptier"]["tier"] for one in found} == {"low"}
    assert found[0]["response"]["body"]["usage"]["total_tokens"] > 0


def test_every_sort_of_line_has_its_own_result(bench: Bench) -> None:
    tools = [{"type": "function", "function": {"name": "time"}}]
    text = {"custom_id": "t", "url": "/v1/completions", "body": {"model": "one", "prompt": "Once"}}
    own = {"key": "o", "kind": "pick", "prompt": "Which?", "expected": "A"}
    bench.read(chat("c", "call it", tools=tools), json.dumps(text), json.dumps(own))
    bench.work()
    called, wrote, picked = (one["response"]["body"] for one in bench.results())
    assert called["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "time"
    assert wrote["object"] == "text_completion"
    assert picked["answer"] in ("A", "B")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "is no JSON"),
        (b'"a string"', "must be an object"),
        (b"\xff\xfe\xff", "UTF-8"),
        (b'{"a": "' + b"x" * MOST_BYTES + b'"}', "longer than"),
        (chat("x", "\ud800"), "body.messages[0].content: holds half a character"),
        (chat("\udc00"), "custom_id: holds half a character"),
        (json.dumps({"kind": "pick", "prompt": "\ud800"}), "prompt: holds half a character"),
        (chat("", "x"), "custom_id: must have 1 to 200"),
        (chat("n" * 201), "custom_id: must have 1 to 200"),
        (json.dumps({"url": "/v1/chat/completions", "body": {}}), "custom_id: must be a string"),
        (chat("x", model="gpt-4o"), "body.model"),
        (chat("x", n=3), "body.n: only 1 is served"),
        (chat("x", stream=True), "body.stream"),
        (json.dumps({"custom_id": "x", "url": "/v1/embeddings", "body": {}}), "url"),
        (json.dumps({"custom_id": "x", "method": "GET", "url": "/v1/completions"}), "method"),
        (json.dumps({"custom_id": "x", "url": "/v1/completions", "bodi": 1}), "bodi: is no field"),
        (json.dumps({"kind": "pick", "prompt": ""}), "prompt: String should have"),
        (json.dumps({"kind": "riddle", "prompt": "x"}), "has no output of its own"),
        (
            json.dumps({"kind": "pick", "prompt": "x", "preferences": {"specialist": "poet"}}),
            "specialist 'poet'",
        ),
        (chat("first"), "custom_id: 'first' is line 1's already"),
        (chat("x", temperature=10**400), "body.temperature: must be a number"),
        (chat("x", max_tokens=10**400), "body.max_tokens: must be a whole number from 1 to"),
        (chat("x", **{"\ud800": 1}), "body.?: is not served"),
        (
            chat("x", tools=[{"type": "function", "function": {"name": "f", "parameters": DEEP}}]),
            "parameters: is no JSON Schema: it is nested more than",
        ),
        (json.dumps({"kind": "pick", "prompt": "x", "seed": 2**63}), "seed: "),
        (json.dumps({"kind": "pick", "prompt": "x", "deadline_s": 1e300}), "deadline_s: "),
        (
            json.dumps({"kind": "pick", "prompt": "x", "signals": {"deadline_days": math.inf}}),
            "signals.deadline_days: ",
        ),
        (json.dumps({"kind": "pick", "prompt": "x", "choices": ["a\0", "b"]}), "NUL"),
    ],
)
def test_a_wrong_line_is_named_and_the_rest_goes_on(
    bench: Bench, line: str | bytes, says: str
) -> None:
    bench.read(chat("first"), "", line, chat("last"))
    bench.work()
    first, wrong, last = bench.results()
    assert (first["error"], last["error"]) == (None, None)
    assert (first["custom_id"], last["custom_id"]) == ("first", "last")
    assert wrong["response"] is None
    assert wrong["error"]["message"].startswith("line 3: ")
    assert says in wrong["error"]["message"]
    assert bench.state().malformed == 1
    json.dumps(wrong, ensure_ascii=False).encode()


def test_arguments_that_are_no_json_within_a_line_stay_the_text_that_they_are(
    bench: Bench,
) -> None:
    function = {"name": "time", "arguments": "[" * 100_000}
    said = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    given = json.loads(chat("deep"))
    given["body"]["messages"].append(said)
    bench.read(json.dumps(given), chat("last"))
    assert [row["error"] for row in rows(bench.engine, "batch_line")] == [None, None]


def test_a_chunk_holds_no_more_of_long_lines_than_one_line_may_have(bench: Bench) -> None:
    asked: list[int] = []

    def ask(decisions: Sequence[Decision]) -> list[str]:
        asked.append(sum(len(one.prompt) for one in decisions))
        return bench.ask(decisions)

    bench.read(*(chat(f"n{i}", "x" * 190_000) for i in range(60)), ask=ask)
    assert sum(asked) == 60 * 190_000
    assert max(asked) <= MOST_BYTES


def test_an_id_is_a_double_also_of_a_line_long_ago(bench: Bench) -> None:
    bench.read(*(chat(f"n{i}") for i in range(CHUNK + 5)), chat("n0"))
    bench.work()
    assert "is line 1's already" in bench.results()[-1]["error"]["message"]


def test_the_id_of_a_wrong_line_is_free(bench: Bench) -> None:
    bench.read(chat("a", n=2), chat("a"))
    bench.work()
    _, right = bench.results()
    assert (right["custom_id"], right["error"]) == ("a", None)
    assert taken_ids(bench.engine, bench.batch.id, ["a"]) == {"a": 2}


def test_what_nobody_could_answer_is_an_error_with_its_story(bench: Bench) -> None:
    bench.read(chat("a", "broken"), chat("b"))
    bench.work()
    failed, fine = bench.results()
    assert failed["response"]["status_code"] == 502
    assert failed["error"]["code"] == "no_answer"
    assert failed["uptier"]["status"] == "dead"
    assert fine["error"] is None
    assert (bench.state().unanswered, bench.state().status) == (1, "completed")


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_reading_goes_on_without_asking_twice(bench: Bench, after: int) -> None:
    lines = [chat(f"n{i}") for i in range(3 * CHUNK)]
    calls = iter(range(10))

    def cut(decisions: Sequence[Decision]) -> list[str]:
        ids = bench.ask(decisions)  # they are in the ledger, their lines are not
        if next(calls) == after:
            raise KeyboardInterrupt
        return ids

    with pytest.raises(KeyboardInterrupt):
        bench.read(*lines, ask=cut)
    assert bench.state().read == after * CHUNK
    bench.work()
    bench.read(*lines)
    bench.work()
    assert [one["custom_id"] for one in bench.results()] == [f"n{i}" for i in range(3 * CHUNK)]
    asked = [row for row in rows(bench.engine, "decision") if row["run_id"] == bench.batch.id]
    assert len(asked) == 3 * CHUNK
    assert bench.asked == 3 * CHUNK + CHUNK  # the chunk whose lines were lost came once more


def test_nothing_is_asked_again_of_a_batch_that_is_read(bench: Bench) -> None:
    bench.read(chat("a"), chat("b", n=4))
    bench.read(chat("a"), chat("b", n=4))
    assert bench.asked == 1


def test_privacy_and_model_are_those_of_the_submitter(bench: Bench) -> None:
    wanted = Wanted("one", Preferences(privacy=Privacy.HIGH))
    own = json.dumps({"kind": "pick", "prompt": "Which?", "key": "o"})
    bench.read(chat("c", model="gpt-4o"), own, wanted=wanted)
    written = [json.loads(row["preferences"]) for row in rows(bench.engine, "decision")]
    assert written == [{"privacy": "high", "force_lane": "one"}] * 2


def test_a_batch_is_known_by_its_file_and_its_wishes(bench: Bench) -> None:
    profile, config = bench.settings.profile, dict(bench.batch.config)
    assert same_batch(bench.engine, "b", profile, config | {"file": "elsewhere"}) == bench.batch
    assert same_batch(bench.engine, "b", profile, config | {"sha256": "y"}) is None
    assert same_batch(bench.engine, "c", profile, config) is None
    assert find_batch(bench.engine, "b") == find_batch(bench.engine, bench.batch.id) == bench.batch


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_lines_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "empty.jsonl").write_text(content)
    with pytest.raises(InputError, match="has no line"):
        examine(tmp_path / "empty.jsonl")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl.*name a file of JSON lines"):
        examine(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="name a file of JSON lines"):
        examine(tmp_path)
