"""Work that nobody wants any more is given up: noticed by the pulse, heeded by backends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from config.errors import Cancelled
from ledger import lifecycle
from ledger.clock import now
from routing.decision import Status, TextOutput
from tests.unit.house import House
from tests.unit.ledgers import rows
from workers.backends.base import Completion, Request
from workers.backends.scripted import ScriptedBackend
from workers.cancellation import CancellationToken

PROFILE = """
[lanes.first]
tier = "low"
model = "one"
[models.one]
backend = "scripted"
[kinds.k]
tier = "low"
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, PROFILE)
    yield made
    made.close()


def test_a_token_calls_everybody_once_whenever_they_came() -> None:
    token, calls = CancellationToken(), []
    token.on_set(lambda: calls.append("early"))
    assert not token.is_set()
    token.set()
    token.set()
    token.on_set(lambda: calls.append("late"))
    assert calls == ["early", "late"]
    assert token.is_set()
    assert token.wait(0)


def test_the_pulse_tells_the_backend_of_what_was_cancelled_and_of_nothing_else(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_it = threading.Event()
    other: list[bool] = []

    def answer(self: ScriptedBackend, requests: Sequence[Request]) -> Iterator[Completion]:
        gone, stays = sorted(requests, key=lambda one: one.prompt)
        at_it.set()
        assert gone.cancellation is not None
        assert gone.cancellation.wait(30)
        yield Completion(id=gone.id, error=Cancelled())
        other.append(stays.cancelled)
        yield Completion(id=stays.id, raw="All is well.")

    monkeypatch.setattr(ScriptedBackend, "answer", answer)
    ids = [house.submit("k", prompt, TextOutput(stops=())) for prompt in ("a gone", "b stays")]
    house.waiting.clear()
    work = threading.Thread(target=house.lanes["first"].answer, args=("first", ids))
    work.start()
    assert at_it.wait(30)
    house.publish(lifecycle.cancel(house.engine, now(), ids=ids[:1]))
    work.join(timeout=30)
    house.work()
    assert other == [False]
    assert house.settled(ids[0]).status is Status.CANCELLED
    assert house.settled(ids[1]).status is Status.ACCEPTED
    assert [row["decision_id"] for row in rows(house.engine, "attempt")] == ids[1:]


def test_what_is_held_is_not_given_up_and_what_is_not_is(house: House) -> None:
    ids = [house.submit("k", f"question {n}", TextOutput(stops=())) for n in range(3)]
    lifecycle.claim(house.engine, "first", ids, token="mine", now=now(), lease_us=10**9)
    assert lifecycle.given_up(house.engine, ids, ["mine"]) == set()
    assert lifecycle.given_up(house.engine, ids, ["another's"]) == set(ids)
    lifecycle.cancel(house.engine, now(), ids=ids[1:2])
    assert lifecycle.given_up(house.engine, ids, ["mine", "another's"]) == {ids[1]}
