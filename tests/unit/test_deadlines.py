"""A decision's deadline reaches the backend; what is stopped there ends as the steward ends it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from config.errors import DeadlinePassed
from ledger import lifecycle, outbox
from ledger.clock import now
from ledger.records import Planned
from routing.decision import Decision, Status, TextOutput
from routing.policy import plan
from tests.unit.house import House
from tests.unit.ledgers import rows
from workers.backends.base import Completion, Request
from workers.backends.scripted import ScriptedBackend

PROFILE = """
[lanes.first]
tier = "low"
model = "one"
[lanes.second]
tier = "high"
model = "two"
[models.one]
backend = "scripted"
[models.two]
backend = "scripted"
[kinds.k]
tier = "low"
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, PROFILE)
    yield made
    made.close()


def submit(house: House, key: str, deadline_s: float | None) -> str:
    asked = Decision(kind="k", prompt="What now?", output=TextOutput(stops=()), key=key,
                     deadline_s=deadline_s, fallback="nothing")  # fmt: skip
    planned = Planned(asked, plan(asked, house.settings.catalog, ()))
    made = lifecycle.submit(house.engine, house.run, [planned], now())
    outbox.publish(house.engine, made.messages, house.waiting.append)
    return made.ids[0]


def test_a_deadline_reaches_the_backend_and_what_it_stops_expires_without_an_attempt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, float | None] = {}

    def answer(self: ScriptedBackend, requests: Sequence[Request]) -> Iterator[Completion]:
        for one in requests:
            seen[one.id] = one.deadline
            error = None if one.deadline is None else DeadlinePassed("its deadline passed")
            yield Completion(id=one.id, raw="All is well.", error=error)

    monkeypatch.setattr(ScriptedBackend, "answer", answer)
    begun = time.monotonic()
    late, free = submit(house, "late", 500), submit(house, "free", None)
    house.work()
    assert seen[free] is None
    deadline = seen[late]
    assert deadline is not None
    assert begun + 490 < deadline < time.monotonic() + 500
    settled = house.settled(late)
    assert (settled.status, settled.answer) == (Status.EXPIRED, "nothing")
    assert settled.reason.startswith("deadline passed")
    assert {row["decision_id"] for row in rows(house.engine, "attempt")} == {free}
