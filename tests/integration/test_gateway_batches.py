"""Files and batches through the official client."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from config.gateway import digest
from tests.integration.gateways import Gateway, serving
from tests.integration.stacks import wait_until

KEYS = {"ann": "sk-uptier-ann", "bob": "sk-uptier-bob"}
URL = "/v1/chat/completions"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("batches")
    path = folder / "keys.toml"
    path.write_text("".join(f'[keys.{n}]\nsha256 = "{digest(k)}"\n' for n, k in KEYS.items()))
    path.chmod(0o600)
    with serving(folder / "data", "--keys", str(path), "--max-file-mib", "1") as found:
        yield found


@pytest.fixture
def ann(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEYS["ann"], max_retries=0) as found:
        yield found


@pytest.fixture
def bob(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEYS["bob"], max_retries=0) as found:
        yield found


def line(custom_id: str, text: str, model: str = "auto", **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": URL, "body": body}


def uploaded(client: OpenAI, *lines: Any) -> str:
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    return client.files.create(file=("asks.jsonl", text.encode()), purpose="batch").id


def begun(client: OpenAI, file_id: str, **more: Any) -> Any:
    given: dict[str, Any] = {"input_file_id": file_id, "endpoint": URL, "completion_window": "24h"}
    return client.batches.create(**given | more)


def ended(client: OpenAI, batch_id: str, *statuses: str) -> Any:
    wait_until(lambda: client.batches.retrieve(batch_id).status in statuses, 60)
    return client.batches.retrieve(batch_id)


def lines_of(client: OpenAI, file_id: str) -> dict[str, Any]:
    text = client.files.content(file_id).text
    return {one["custom_id"]: one for one in map(json.loads, text.splitlines())}


def test_a_batch_is_uploaded_answered_and_its_results_are_read(ann: OpenAI) -> None:
    file_id = uploaded(
        ann, *(line(f"q{i}", "What is the capital of France?") for i in range(120)),
        line("lost", "nobody can say"), line("wrong", "x", n=3), "no json",
    )  # fmt: skip
    batch = begun(ann, file_id, metadata={"of": "the test"})
    assert (batch.object, batch.input_file_id, batch.metadata) == (
        "batch", file_id, {"of": "the test"},
    )  # fmt: skip
    batch = ended(ann, batch.id, "completed")
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (123, 120, 3)
    assert batch.completed_at >= batch.created_at
    answers = lines_of(ann, batch.output_file_id)
    assert list(answers) == [f"q{i}" for i in range(120)]
    body = answers["q7"]["response"]["body"]
    assert body["choices"][0]["message"]["content"].startswith("Paris")
    errors = lines_of(ann, batch.error_file_id)
    assert errors["lost"]["response"]["status_code"] == 502
    assert errors["wrong"]["error"]["param"] == "body.n"
    assert len(errors) == 3
    assert ann.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_wishes_of_a_batch_hold_for_its_lines(ann: OpenAI) -> None:
    wishes = {"uptier": {"max_cost_usd": "0.000001", "privacy": "high"}}
    batch = begun(ann, uploaded(ann, line("dear", "easy", "cloud")), extra_body=wishes)
    batch = ended(ann, batch.id, "completed")
    assert lines_of(ann, batch.output_file_id)["dear"]["uptier"]["status"] == "budget"


def test_a_batch_is_cancelled_and_keeps_what_it_has(ann: OpenAI) -> None:
    file_id = uploaded(ann, line("quick", "easy"), *(line(f"s{i}", "x", "slow") for i in range(5)))
    batch = begun(ann, file_id)
    assert ann.batches.cancel(batch.id).status == "cancelled"
    batch = ended(ann, batch.id, "cancelled")
    assert batch.cancelled_at is not None
    assert batch.request_counts.total == 6
    assert batch.request_counts.completed < 6


def test_a_completed_batch_cannot_be_cancelled(ann: OpenAI) -> None:
    batch = begun(ann, uploaded(ann, line("one", "easy")))
    ended(ann, batch.id, "completed")
    with pytest.raises(openai.ConflictError):
        ann.batches.cancel(batch.id)


def test_batches_and_files_are_listed_by_page_and_deleted(ann: OpenAI) -> None:
    made = [begun(ann, uploaded(ann, line(f"l{i}", "easy"))).id for i in range(3)]
    listed = [batch.id for batch in ann.batches.list(limit=2)]  # the client pages on
    assert listed[:3] == made[::-1]
    files = [file.id for file in ann.files.list(purpose="batch", limit=1)]
    assert len(files) == len(set(files)) >= 3
    assert ann.files.delete(files[0]).deleted is True
    with pytest.raises(openai.NotFoundError):
        ann.files.retrieve(files[0])


def test_what_is_another_key_s_is_not_found(ann: OpenAI, bob: OpenAI) -> None:
    file_id = uploaded(ann, line("mine", "easy"))
    batch = begun(ann, file_id)
    for call in (
        lambda: bob.files.retrieve(file_id),
        lambda: bob.files.content(file_id),
        lambda: bob.files.delete(file_id),
        lambda: bob.batches.retrieve(batch.id),
        lambda: bob.batches.cancel(batch.id),
        lambda: begun(bob, file_id),
        lambda: ann.files.retrieve("../../keys"),
        lambda: ann.files.content("file-..%2F..%2Fkeys.toml"),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
    assert file_id not in [file.id for file in bob.files.list()]
    assert batch.id not in [one.id for one in bob.batches.list()]


def test_lines_are_paid_by_the_key_whatever_they_say(ann: OpenAI, gateway: Gateway) -> None:
    own = {"key": "own", "kind": "question", "prompt": "easy",
           "preferences": {"payer": {"name": "bob"}}}  # fmt: skip
    batch = begun(ann, uploaded(ann, own, line("plain", "easy")))
    batch = ended(ann, batch.id, "completed")
    run = batch.to_dict()["uptier"]["run"]
    with gateway.http(KEYS["ann"]) as mine, gateway.http(KEYS["bob"]) as other:
        counts = [
            len(http.get("/v1/decisions", params={"run": run}).json()["data"])
            for http in (mine, other)
        ]
    assert counts[0] + batch.request_counts.failed == 2
    assert counts[1] == 0


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
        ({"extra_body": {"uptier": {"kind": "question"}}}, "uptier"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(ann: OpenAI, more: dict[str, Any], param: str) -> None:
    file_id = uploaded(ann, line("one", "easy"))
    with pytest.raises(openai.BadRequestError) as error:
        begun(ann, file_id, **more)
    assert error.value.param == param


def test_files_that_cannot_be_are_refused(ann: OpenAI, gateway: Gateway) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose"):
        ann.files.create(file=("a.jsonl", b"{}"), purpose="assistants")
    with pytest.raises(openai.APIStatusError) as error:
        ann.files.create(file=("a.jsonl", io.BytesIO(b"x" * (3 << 19))), purpose="batch")
    assert error.value.status_code == 413
    with pytest.raises(openai.BadRequestError, match="no line"):
        begun(ann, ann.files.create(file=("a.jsonl", b"\n"), purpose="batch").id)
    with gateway.http(KEYS["ann"]) as http:
        plain = http.post("/v1/files", json={"file": "x"})
        broken = http.post("/v1/files", content=b"--x\r\nbroken",
                           headers={"content-type": "multipart/form-data; boundary=x"})  # fmt: skip
    assert [plain.status_code, broken.status_code] == [400, 400]
    assert [one.json()["error"]["type"] for one in (plain, broken)] == ["invalid_request_error"] * 2


def test_a_batch_that_its_gateway_left_unread_is_gone_on_with(tmp_path: Path) -> None:
    count = 20_000
    with serving(tmp_path) as first, client(first) as opened:
        lines = [json.dumps(line(f"q{i}", "easy", "slow")) for i in range(count)]
        batch = begun(opened, uploaded(opened, *lines))
        assert first.stop() == 130
    with serving(tmp_path) as second, client(second) as opened:

        def total() -> int:
            return sum(opened.batches.retrieve(batch.id).to_dict()["uptier"]["by_status"].values())

        before = total()
        wait_until(lambda: total() > before, 60)
        assert opened.batches.cancel(batch.id).status == "cancelled"


def client(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
