"""Raw decisions of programs without Uptier: taken once, refused by name, fetched by key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject
from sqlalchemy.exc import OperationalError

from config.errors import InputError
from config.queues import FETCH, INTAKE_TASK, wants_reply
from ledger.clock import now
from tests.unit.house import House
from tests.unit.ledgers import rows
from workers import intake as intake_module
from workers.intake import MOST_CHARS, MOST_DECISIONS, Intake
from workers.tasks import serve_raw

PROFILE = """
[lanes.one]
tier = "low"
model = "fast"
[models.fast]
backend = "scripted"
[kinds.pick]
tier = "low"
output = "choice"
labels = ["A", "B"]
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path, PROFILE)
    yield opened
    opened.close()


@pytest.fixture
def intake(house: House) -> Intake:
    return Intake(house.settings, engine=house.engine, publisher=house, clock=now)  # type: ignore[arg-type]


def pick(key: str, **more: Any) -> dict[str, Any]:
    return {"kind": "pick", "prompt": f"Which of {key}?", "key": key, **more}


def test_what_was_taken_can_be_fetched_when_it_is_settled(house: House, intake: Intake) -> None:
    told = intake.take("night", [pick("a"), pick("b")])
    assert [one["key"] for one in told["accepted"]] == ["a", "b"]
    assert intake.fetch("night", ["a", "z"]) == {
        "run": told["run"], "settled": [], "open": ["a"], "unknown": ["z"]
    }  # fmt: skip
    house.work()
    found = intake.fetch("night", ["b", "a"])
    assert [one["key"] for one in found["settled"]] == ["b", "a"]
    assert {one["status"] for one in found["settled"]} == {"accepted"}
    assert {one["answer"] for one in found["settled"]} <= {"A", "B"}


def test_a_message_that_comes_twice_changes_nothing(house: House, intake: Intake) -> None:
    first = intake.take("night", [pick("a")])
    house.work()
    before = rows(house.engine, "decision")
    assert intake.take("night", [pick("a")]) == first
    assert not house.waiting
    assert rows(house.engine, "decision") == before
    assert [row["mode"] for row in rows(house.engine, "run")].count("intake") == 1


def test_runs_of_other_names_have_keys_of_their_own(house: House, intake: Intake) -> None:
    one, other = (intake.take(name, [pick("a")]) for name in ("night", "day"))
    assert one["run"] != other["run"]
    assert one["accepted"][0]["id"] != other["accepted"][0]["id"]


def test_a_malformed_decision_is_refused_by_itself(
    intake: Intake, caplog: pytest.LogCaptureFixture
) -> None:
    poet = pick("p", preferences={"specialist": "poet"})
    assert "specialist 'poet'" in intake.take("night", [poet, pick("q")])["refused"][0]["error"]
    given = [
        pick("a"),
        pick("b", kind="riddle"),
        "text",
        {"prompt": "x"},
        pick("\ud800"),
        pick("n", signals={"deadline_days": math.nan}),
        pick("s", seed=2**63),
        pick("c", secret="s3"),
    ]
    told = intake.take("night", given)
    assert [one["key"] for one in told["accepted"]] == ["a"]
    assert [one["index"] for one in told["refused"]] == [1, 2, 3, 4, 5, 6, 7]
    assert "has no output of its own" in told["refused"][0]["error"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[-1].startswith("intake into run 'night': decisions[7]: secret: is no field")
    assert "s3" not in lines[-1]
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("run", "decisions", "says"),
    [
        (None, [pick("a")], "run: must be a name"),
        ("", [pick("a")], "run: must be a name"),
        ("n" * 201, [pick("a")], "run: must be a name"),
        ("night\0", [pick("a")], "run: must be a name"),
        ("\ud800", [pick("a")], "run: must be a name"),
        (7, [pick("a")], "run: must be a name"),
        ("night", None, "decisions: must be a list"),
        ("night", {}, "decisions: must be a list"),
        ("night", [], "decisions: must be a list"),
        ("night", [pick("a")] * (MOST_DECISIONS + 1), "decisions: must be a list of 1 to 200"),
        ("night", [pick("a", prompt="x" * (MOST_CHARS + 1))], "send several messages"),
    ],
)
def test_a_malformed_message_is_refused_as_a_whole(
    house: House, intake: Intake, run: object, decisions: object, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        intake.take(run, decisions)
    assert [row["mode"] for row in rows(house.engine, "run")] == ["test"]


@pytest.mark.parametrize("keys", [None, [], "a", [1], ["k" * 201], ["a"] * 201])
def test_fetching_wants_a_list_of_keys(intake: Intake, keys: object) -> None:
    with pytest.raises(InputError, match="keys: must be a list"):
        intake.fetch("night", keys)


@pytest.mark.parametrize("key", ["a\0", "\ud800"])
def test_a_key_that_no_ledger_can_look_for_is_refused(intake: Intake, key: str) -> None:
    with pytest.raises(InputError, match="keys: one holds"):
        intake.fetch("night", ["a", key])


def test_one_that_nobody_foresaw_is_refused_by_itself(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = intake_module.decision_from

    def overflow(given: Any, catalog: Any) -> Any:
        if given["key"] == "b":
            raise OverflowError("too large")
        return read(given, catalog)

    monkeypatch.setattr(intake_module, "decision_from", overflow)
    told = intake.take("night", [pick("a"), pick("b"), pick("c")])
    assert [one["key"] for one in told["accepted"]] == ["a", "c"]
    assert told["refused"] == [{"index": 1, "error": "cannot be read (OverflowError)"}]


def test_an_unknown_run_has_nothing(intake: Intake) -> None:
    assert intake.fetch("never", ["a"]) == {
        "run": None, "settled": [], "open": [], "unknown": ["a"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("reply.mine", True), ("quality", False), ("", False), (None, False), ("reply." * 99, False)],
)
def test_replies_go_to_queues_for_replies_alone(name: object, wanted: bool) -> None:
    assert wants_reply(name) is wanted


def serve(intake: Intake, task: str, *arguments: Any, **named: Any) -> None:
    """As a worker does with a message whose asker wants no reply."""
    work = intake.take if task == INTAKE_TASK else intake.fetch
    request = SimpleNamespace(reply_to="5c3f", correlation_id="1")
    serve_raw(Celery(), SimpleNamespace(name=task, request=request), work, arguments, named)


@pytest.mark.parametrize(
    ("task", "arguments", "named", "says"),
    [
        (INTAKE_TASK, ("a", "b", "c"), {}, "arguments: too many positional"),
        (INTAKE_TASK, (), {"nonsense": 1}, "arguments: got an unexpected keyword"),
        (INTAKE_TASK, (), {}, "run: must be a name"),
        (FETCH, ("night",), {}, "keys: must be a list"),
    ],
)
def test_the_worker_tells_what_is_malformed_in_one_line_and_goes_on(
    intake: Intake, caplog: pytest.LogCaptureFixture, task: str, arguments: Any, named: Any,
    says: str,
) -> None:  # fmt: skip
    serve(intake, task, *arguments, **named)
    [line] = caplog.messages
    assert line.startswith(f"{task} dropped: {says}")
    assert "\n" not in line


def test_a_message_goes_back_to_its_queue_only_where_the_ledger_is_away(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(reason: str) -> Any:
        def fail(*_: object, **__: object) -> None:
            raise OperationalError("", {}, Exception(reason))

        return fail

    monkeypatch.setattr(intake_module, "patiently", fails("connection refused"))
    with pytest.raises(Reject) as caught:
        serve(intake, INTAKE_TASK, "night", [pick("a")])
    assert caught.value.args[1] is True  # it goes back to its queue
    monkeypatch.setattr(intake_module, "patiently", fails("no such table: run"))
    with pytest.raises(OperationalError):
        serve(intake, INTAKE_TASK, "night", [pick("a")])
