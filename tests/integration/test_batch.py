"""Batches and replays as a user runs them, at every place; wrong input in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.places import Place
from tests.integration.stacks import wait_until
from tests.integration.test_bad_input import refused
from tests.integration.test_decisions import PROFILE
from tests.integration.test_simulate import command, embedded, environment, rows, run, settled

LINES = 300


@pytest.fixture(scope="module")
def serving(place: Place) -> Iterator[None]:
    """Workers that stay up; at the embedded place each command starts its own."""
    if place.name == "embedded":
        yield
        return
    run(place, "up", "--profile", str(PROFILE))
    yield
    run(place, "down")


def chat(number: int) -> dict[str, Any]:
    """A line that takes a moment; every tenth is a decision of Uptier's own."""
    if number % 10 == 3:
        return {"custom_id": f"n{number}", "kind": "question", "prompt": f"slow {number}",
                "expected": "A"}  # fmt: skip
    messages = [{"role": "user", "content": f"slow {number}"}]
    return {"custom_id": f"n{number}", "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "tier1", "messages": messages}}  # fmt: skip


def written(folder: Path, count: int = LINES, *more: str) -> Path:
    path = folder / "lines.jsonl"
    path.write_text("\n".join([*(json.dumps(chat(i)) for i in range(count)), *more]) + "\n")
    return path


def attempt(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), capture_output=True, text=True, env=environment(place), timeout=400,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def interrupt(place: Place, *words: str, after: int) -> str:
    """Run a command, and Ctrl-C once so many more decisions are settled."""
    before = settled(place)
    process = subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment(place), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and settled(place) < before + after:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=90)
        assert process.returncode == 130, said
        return said
    finally:
        process.kill()
        process.wait()


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("serving")
def test_a_batch_that_is_interrupted_comes_to_the_same_end(place: Place, tmp_path: Path) -> None:
    file = written(tmp_path, LINES, "nonsense", json.dumps(chat(7)))
    submit = ("batch", "submit", str(file), "--profile", str(PROFILE), "--wait", "--name", "it")
    said = interrupt(place, *submit, after=20)
    assert "run the same command again" in said
    done = attempt(place, *submit)
    assert done.returncode == 1, done.stderr  # two lines are wrong
    assert "going on with batch" in done.stderr
    state = json.loads(run(place, "batch", "status", "it", "--json"))
    assert (state["status"], state["settled"], state["malformed"]) == ("completed", LINES, 2)
    out = tmp_path / "results.jsonl"
    assert attempt(place, "batch", "collect", "it", "--out", str(out)).returncode == 1
    found = results(out)
    assert [one["custom_id"] for one in found] == [f"n{i}" for i in range(LINES)]
    assert {one["uptier"]["tier"] for one in found} == {"local_fast"}
    bodies = [one["response"]["body"] for one in found]
    assert {body["object"] for body in bodies} == {"chat.completion", "uptier.decision"}
    errors = results(tmp_path / "results.errors.jsonl")
    assert [one["error"]["message"].split(":")[0] for one in errors] == [
        f"line {LINES + 1}", f"line {LINES + 2}"
    ]  # fmt: skip
    twice = f"select key from decision where run_id = '{state['batch']}'"
    assert len(rows(place, twice)) == LINES
    replays(place, state["batch"])


def replays(place: Place, source: str) -> None:
    """The same run, asked again on another tier; cut short and gone on with."""
    asks = ("replay", source, "--profile", str(PROFILE), "--tier", "local_quality")
    interrupt(place, *asks, after=20)
    found = json.loads(run(place, *asks, "--resume", "--json"))
    assert (found["compared"], found["open"], found["unfit"]) == (LINES, 0, [])
    assert found["before"]["by_tier"] == {"local_fast": LINES}
    assert found["after"]["by_tier"] == {"local_quality": LINES}
    assert found["known"] == LINES // 10
    runs = rows(place, f"select id from run where config like '%{source}%' and mode = 'replay'")
    assert [row.id for row in runs] == [found["after"]["run"]]


def test_a_batch_without_a_stack_waits_in_the_ledger(tmp_path: Path) -> None:
    place, file = embedded(tmp_path / "data"), written(tmp_path, 5)
    done = attempt(place, "batch", "submit", str(file), "--profile", str(PROFILE))
    assert done.returncode == 0, done.stderr
    assert "no stack is up" in done.stderr
    assert not (tmp_path / "data" / "stack" / "stack.json").exists()
    early = attempt(place, "batch", "collect", "lines")
    assert early.returncode == 2
    assert "5 of 5 lines have no result yet" in early.stderr
    assert run(place, "batch", "collect", "lines", "--partial") == ""
    run(place, "up", "--profile", str(PROFILE))
    try:
        deadline = time.monotonic() + 60
        while json.loads(run(place, "batch", "status", "lines", "--json"))["open"]:
            assert time.monotonic() < deadline
    finally:
        run(place, "down")
    found = [json.loads(line) for line in run(place, "batch", "collect", "lines").splitlines()]
    assert [one["custom_id"] for one in found] == [f"n{i}" for i in range(5)]
    assert json.loads(run(place, "batch", "list", "--json"))[0]["status"] == "completed"


def test_a_cancelled_batch_is_not_gone_on_with(tmp_path: Path) -> None:
    place, file = embedded(tmp_path / "data"), written(tmp_path, 3)
    submit = ("batch", "submit", str(file), "--profile", str(PROFILE))
    run(place, *submit)
    assert run(place, "batch", "cancel", "lines") == "cancelled 3 open decisions\n"
    state = json.loads(run(place, "batch", "status", "lines", "--json"))
    assert (state["status"], state["unanswered"]) == ("cancelled", 3)
    again = attempt(place, *submit)
    assert "going on" not in again.stderr
    assert len(json.loads(run(place, "batch", "list", "--json"))) == 2


def test_a_batch_that_is_cancelled_while_it_is_read_is_not_read_on(tmp_path: Path) -> None:
    place, file = embedded(tmp_path / "data"), written(tmp_path, 60_000)
    reading = subprocess.Popen(
        command("batch", "submit", str(file), "--profile", str(PROFILE)), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(place),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: attempt(place, "batch", "cancel", "lines").returncode == 0, 60)
        _, said = reading.communicate(timeout=60)
    finally:
        reading.kill()
        reading.wait()
    assert reading.returncode == 1, said
    assert "cancelled while its file was read" in said
    state = json.loads(run(place, "batch", "status", "lines", "--json"))
    assert (state["status"], state["open"]) == ("cancelled", 0)
    assert state["read"] < 60_000


def test_wrong_input_of_batches_is_one_line(tmp_path: Path) -> None:
    data, file = tmp_path / "data", written(tmp_path, 1)
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    profile = ("--profile", str(PROFILE))
    refused("batch", "submit", str(empty), *profile, data=data, says=("empty.jsonl", "no line"))
    refused("batch", "submit", "nowhere", *profile, data=data, says=("'nowhere'", "JSON lines"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused("batch", "submit", str(pipe), *profile, data=data, says=("pipe", "read twice"))
    refused(
        "batch", "submit", str(file), *profile, "--model", "gpt-9", data=data,
        says=("gpt-9", "tier1"),
    )  # fmt: skip
    assert not data.exists()
    refused("batch", "status", "b9", data=data, says=("'b9'", "uptier batch list"))
    refused("batch", "collect", "b9", data=data, says=("'b9'", "uptier batch list"))
    run(embedded(data), "batch", "submit", str(file), *profile)
    refused(
        "batch", "collect", "lines", "--partial", "--out", str(tmp_path / "no" / "file"),
        data=data, says=("--out", "name another file"),
    )  # fmt: skip


def test_wrong_input_of_replays_is_one_line(tmp_path: Path) -> None:
    data, file, profile = tmp_path / "data", written(tmp_path, 1), ("--profile", str(PROFILE))
    refused("replay", "r9", *profile, data=data, says=("'r9'", "check the id"))
    refused("replay", "r9", *profile, "--tier", "moon", data=data, says=("'moon'", "local_fast"))
    run(embedded(data), "batch", "submit", str(file), *profile)
    source = json.loads(run(embedded(data), "batch", "list", "--json"))[0]["batch"]
    refused("replay", source, *profile, "--kind", "x", data=data, says=("'x'", "chat"))
    refused("replay", source, *profile, "--resume", data=data, says=("no unfinished replay",))
