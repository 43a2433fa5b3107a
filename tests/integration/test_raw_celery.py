"""Programs that have Celery and nothing of Uptier, at every place: real brokers, real workers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.session import Session, session
from config.broker import is_amqp, tls_options
from config.queues import FETCH, INTAKE, INTAKE_TASK, make_app, name_on_broker
from tests.integration.places import Place
from tests.unit.ledgers import rows
from workers.stack_state import StackState

PROFILE = Path(__file__).parents[1] / "profiles_scripted.toml"
PROGRAM = Path(__file__).parent / "celery_only.py"
Message = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def live(place: Place) -> Iterator[Session]:
    with session(place.settings(profile=str(PROFILE)), mode="test", own_workers=True) as opened:
        yield opened


def broker_of(live: Session) -> str:
    state = StackState.read(live.settings.stack_dir)
    assert state is not None
    return state.broker_url


def send(live: Session, *messages: Message) -> list[dict[str, Any]]:
    """What a process gets for these messages that has nothing but Celery."""
    broker, prefix = broker_of(live), live.settings.key_prefix
    amqp = is_amqp(broker)
    conf: dict[str, Any] = {"broker_use_ssl": tls_options(broker, live.settings.broker_ca_file)}
    if not amqp:
        conf["broker_transport_options"] = {"global_keyprefix": prefix}
    order = {
        "broker": broker,
        "conf": conf,
        "queue": name_on_broker(INTAKE, broker, prefix),
        "arguments": {"x-queue-type": "quorum"} if amqp else None,
        "reply_queue": {"exclusive": True, "auto_delete": True, "durable": False},
        "messages": messages,
    }
    done = subprocess.run(
        [sys.executable, "-I", str(PROGRAM), json.dumps(order)],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["imported"] == []
    found: list[dict[str, Any]] = told["replies"]
    return found


def ask(run: str, *decisions: dict[str, Any]) -> Message:
    return INTAKE_TASK, {"run": run, "decisions": list(decisions)}


def question(key: str, **more: Any) -> dict[str, Any]:
    return {"kind": "question", "prompt": f"easy {key}", "key": key, **more}


def fetched(live: Session, run: str, *keys: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        [told] = send(live, (FETCH, {"run": run, "keys": list(keys)}))
        if not told["open"]:
            return told
        assert time.monotonic() < deadline, told


def test_a_question_is_answered_to_who_has_only_celery(live: Session) -> None:
    [told] = send(live, ask("night", question("a"), question("b", expected="A")))
    assert [one["key"] for one in told["accepted"]] == ["a", "b"]
    found = fetched(live, "night", "a", "b", "c")
    assert {one["status"] for one in found["settled"]} == {"accepted"}
    assert {one["answer"] for one in found["settled"]} <= {"A", "B"}
    assert found["unknown"] == ["c"]
    runs = [row for row in rows(live.engine, "run") if row["id"] == told["run"]]
    assert [(row["mode"], row["name"]) for row in runs] == [("intake", "night")]


def test_the_same_message_again_asks_nothing_again(live: Session) -> None:
    message = ask("twice", question("a"))
    first, again = send(live, message, message)
    assert first == again
    fetched(live, "twice", "a")
    asked = [row for row in rows(live.engine, "decision") if row["run_id"] == first["run"]]
    assert len(asked) == 1


def test_malformed_messages_are_told_and_the_worker_goes_on(live: Session) -> None:
    bad = question("bad", choices="A,B")
    replies = send(
        live,
        (INTAKE_TASK, {"nonsense": 1}),
        (INTAKE_TASK, {"run": 7, "decisions": []}),
        (FETCH, {"run": "bad"}),
        ask("bad", bad, question("good")),
    )
    assert replies[0]["error"].startswith("arguments: ")
    assert replies[1]["error"].startswith("run: ")
    assert replies[2]["error"].startswith("keys: ")
    assert replies[3]["refused"] == [{"index": 0, "error": "choices: must be a list of labels"}]
    assert [one["key"] for one in replies[3]["accepted"]] == ["good"]
    assert fetched(live, "bad", "good")["settled"][0]["status"] == "accepted"
    log = "".join(path.read_text() for path in _logs(live))
    assert "uptier.intake dropped: arguments: " in log
    assert "Traceback" not in log


def test_a_reply_never_lands_in_a_queue_of_work(live: Session) -> None:
    app = make_app(live.settings, broker_of(live))
    try:
        for stranger in ("quality", "tier1", ""):
            app.send_task(
                INTAKE_TASK, kwargs={"run": "reply", "decisions": [question(stranger or "none")]},
                queue=INTAKE, reply_to=stranger,
            )  # fmt: skip
    finally:
        app.close()
    fetched(live, "reply", "quality", "tier1", "none")


def _logs(live: Session) -> list[Path]:
    return sorted((live.settings.stack_dir / "logs").glob("quality*"))
