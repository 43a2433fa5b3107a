"""What those who watch workers are shown, when they are told, and who may look."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import InvalidTaskError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from config.errors import ConfigurationError
from config.flower import LOGIN, flower_login
from config.queues import FETCH, INTAKE_TASK, make_app
from config.settings import Settings
from ledger import lifecycle, outbox
from ledger.database import writing
from ledger.outbox import CHECK, DECIDE, Message
from ledger.runs import start_run
from tests.unit.ledgers import fresh, planned
from workers.consumer import LaneConsumer
from workers.naming import node_name
from workers.shown import ShownRequest, shown
from workers.watchers import UNWATCHED_AFTER_S, enable_events, end_unwatched

SECRET = "the salary of Ada"
RAW = {"run": "nightly", "decisions": [{"key": "a", "prompt": SECRET}, {"key": "b"}]}


def test_a_message_describes_itself_by_lane_count_and_run() -> None:
    message = Message("m", DECIDE, "tier1", ("a", "b"), "run-1")
    assert message.described == "tier1: 2 decisions of run run-1"
    assert Message("m", CHECK, "quality", ("a",)).described == "quality: 1 decision"


def test_submitted_decisions_go_out_with_their_run(tmp_path: Path) -> None:
    engine = fresh(tmp_path)
    run = start_run(engine, mode="test", profile="p", now=0).id
    two = [planned("one", "tier1"), planned("two", "tier1")]
    [message] = lifecycle.submit(engine, run, two, now=1).messages
    assert message.described == f"tier1: 2 decisions of run {run}"
    late = outbox.unsent(engine, older_than=10)
    assert [m.described for m in late] == ["tier1: 2 decisions"]


@pytest.mark.parametrize(
    ("task", "told", "args", "kwargs", "expected"),
    [
        (DECIDE, "tier1: 2 decisions of run r1", ["tier1", ["a", "b"]], {}, None),
        (DECIDE, "['tier1', ['a']]", ["tier1", ["a"]], {}, "1 decision"),
        (CHECK, f"quality: 1 decision of run r1 {SECRET}", [["a"]], {}, "1 decision"),
        (INTAKE_TASK, f"({SECRET!r},)", [], RAW, "2 decisions of run nightly"),
        (INTAKE_TASK, "", ["nightly", RAW["decisions"]], {}, "2 decisions of run nightly"),
        (INTAKE_TASK, "", [], {"run": 7, "decisions": SECRET}, "0 decisions"),
        (FETCH, "", [], {"run": "r", "keys": ["a", "b", "c"]}, "3 decisions of run r"),
        (DECIDE, "", SECRET, SECRET, "0 decisions"),
    ],
)  # fmt: skip
def test_what_is_shown_is_told_by_uptier(
    task: str, told: str, args: Any, kwargs: Any, expected: str | None
) -> None:
    assert shown(task, told, args, kwargs) == (told if expected is None else expected)


def request_of(app: Celery, *args: Any, **kwargs: Any) -> ShownRequest:
    @app.task(name=INTAKE_TASK, Request=ShownRequest, shared=False)
    def intake(*args: Any, **kwargs: Any) -> None:
        pass

    sent = app.amqp.as_task_v2("an-id", INTAKE_TASK, args, kwargs)
    message = SimpleNamespace(
        headers=sent.headers, body=sent.body, payload=sent.body, properties={}, delivery_info={},
        content_type="application/json", content_encoding="utf-8",
    )  # fmt: skip
    return ShownRequest(message, app=app, task=app.tasks[INTAKE_TASK])


@pytest.mark.parametrize("safe", [True, False])
def test_nobody_who_inspects_a_worker_sees_a_prompt(tmp_path: Path, safe: bool) -> None:
    app = make_app(Settings(data_dir=tmp_path), "memory://")
    request = request_of(app, **RAW)
    assert SECRET not in repr(request.info(safe=safe)) + repr(request)
    assert request.info(safe=safe)["args"] == "2 decisions of run nightly"
    assert request.kwargs == RAW, "what the task is called with stays as it is"


@pytest.mark.parametrize("body", [{}, [], 7, [[], {}], None])
def test_a_message_that_is_put_together_wrongly_ends_no_worker(tmp_path: Path, body: Any) -> None:
    app = make_app(Settings(data_dir=tmp_path), "memory://")

    @app.task(name=INTAKE_TASK, shared=False)
    def intake() -> None:
        pass

    message = SimpleNamespace(
        headers={"id": "an-id", "task": INTAKE_TASK}, body=body, payload=body, properties={},
        delivery_info={}, content_type="application/json", content_encoding="utf-8",
    )  # fmt: skip
    with pytest.raises(InvalidTaskError):  # what Celery drops
        ShownRequest(message, app=app, task=intake)


def test_what_is_none_of_uptiers_is_dropped_and_its_texts_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dropped: list[Any] = []
    message = SimpleNamespace(
        headers={"id": "an-id", "task": "uptier.intakes", "kwargsrepr": SECRET}, body=SECRET,
        payload=SECRET, properties={}, delivery_info={}, content_type="application/json",
        content_encoding="utf-8", ack=lambda: dropped.append("acknowledged"),
        reject_log_error=lambda *_: dropped.append("rejected"),
    )  # fmt: skip
    consumer = LaneConsumer.__new__(LaneConsumer)
    consumer.connection_errors, consumer.event_dispatcher = (), None
    consumer.app = make_app(Settings(), "memory://")
    consumer.on_unknown_task(None, message, KeyError("uptier.intakes"))
    consumer.on_unknown_message(SECRET, message)
    consumer.on_invalid_task(SECRET, message, InvalidTaskError(SECRET))
    consumer.on_decode_error(message, ValueError(SECRET))
    assert len(dropped) == len(caplog.records) == 4
    assert "'uptier.intakes' is not known here" in caplog.text
    assert SECRET not in caplog.text


def test_an_error_of_the_ledger_names_no_prompt(tmp_path: Path) -> None:
    """It becomes the text of a failed task, which watchers see."""
    engine = fresh(tmp_path)
    with pytest.raises(DBAPIError) as failed, writing(engine) as connection:
        connection.execute(text("INSERT INTO prefix (id, text) VALUES (:id, :text)"),
                           [{"id": "a", "text": SECRET}] * 2)  # fmt: skip
    assert SECRET not in repr(failed.value) + str(failed.value)


def test_task_events_are_off_until_somebody_watches_and_end_when_nobody_asks() -> None:
    assert make_app(Settings(), "memory://").conf["worker_send_task_events"] is False
    consumer = SimpleNamespace(event_dispatcher=SimpleNamespace(groups={"worker"}))
    assert not end_unwatched(consumer, now=0.0)
    enable_events(SimpleNamespace(consumer=consumer))
    assert consumer.event_dispatcher.groups == {"worker", "task"}
    asked = consumer.watched_at
    assert not end_unwatched(consumer, asked + UNWATCHED_AFTER_S - 1)
    assert end_unwatched(consumer, asked + UNWATCHED_AFTER_S)
    assert consumer.event_dispatcher.groups == {"worker"}


def with_login(tmp_path: Path, login: str | None, **given: Any) -> Settings:
    keys = tmp_path / "keys"
    keys.write_text("" if login is None else f"{LOGIN}={login}\n")
    keys.chmod(0o600)
    return Settings(data_dir=tmp_path, keys_file=keys, **given)


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.7", "flower.example.org", "::"])
def test_beyond_this_machine_a_login_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.delenv(LOGIN, raising=False)
    with pytest.raises(ConfigurationError, match=f"{LOGIN}=user:password") as refused:
        flower_login(with_login(tmp_path, None, flower_address=address))
    assert "\n" not in str(refused.value)
    assert address in str(refused.value)
    found = flower_login(with_login(tmp_path, "ada:long enough", flower_address=address))
    assert found == "ada:long enough"


@pytest.mark.parametrize("login", ["ada", ":secretsecret", "ada:", "ada:pässword-long"])
def test_a_malformed_login_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    monkeypatch.delenv(LOGIN, raising=False)
    with pytest.raises(ConfigurationError, match="user:password") as refused:
        flower_login(with_login(tmp_path, login))
    assert login not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "card", "expected"),
    [
        ("tier1-1", "0", "tier1-gpu0"),
        ("tier1-2", "0", "tier1-gpu0-2"),
        ("tier1-2", "1", "tier1-gpu1-2"),
        ("tier1", "3", "tier1-gpu3"),
        ("mine", "0", "tier1-gpu0-mine"),
        ("tier1-1", "GPU-5f2c9a1e-77aa-11ee", "tier1-gpu5f2c9a1e"),
        ("tier1-1", None, "tier1-1"),
        ("tier1-1", "", "tier1-1"),
        ("tier1-1", "0,1", "tier1-1"),
        ("tier1-1", "-1", "tier1-1"),
    ],
)
def test_workers_are_named_by_lane_and_card(name: str, card: str | None, expected: str) -> None:
    environ = {} if card is None else {"CUDA_VISIBLE_DEVICES": card}
    assert node_name(name, "tier1", environ) == expected
