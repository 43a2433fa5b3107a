"""The hub: many wait on one loop, each is told once, and nobody's leaving is forgotten."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError, StackError
from config.queues import notify, settled_exchange
from config.settings import Settings
from ledger import lifecycle
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.runs import start_run
from producers.client import Client
from producers.hub import Hub, Ticket
from routing.decision import ChoiceOutput, Decision, Preferences, Status
from tests.unit.ledgers import rows

PROFILE = Path(__file__).parents[1] / "profiles_gateway.toml"
AB = ChoiceOutput(labels=("A", "B"))


class House:
    """A client on a real ledger and a broker in memory; the tests settle what it asks."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder, profile=str(PROFILE))
        migrate(self.settings)
        self.engine = open_ledger(self.settings)
        run = start_run(self.engine, mode="test", profile=self.settings.profile, now=now())
        self.fault: str | None = None
        self.client = Client(self.settings, "memory://", run, failure=lambda: self.fault)

    def settle(self, *ids: str, tell: bool = True) -> None:
        """End decisions, with a notice or without."""
        ended = lifecycle.cancel(self.engine, now(), ids=ids, reason="the test says so")
        if tell:
            notify(self.client._app, ended.settled)

    def states(self) -> list[str]:
        """Of all decisions, in the order of submission."""
        return [row["state"] for row in rows(self.engine, "decision")]

    def run(self, scene: Callable[[Hub], Awaitable[Any]]) -> Any:
        """Play a scene on a loop with a hub of its own."""

        async def play() -> Any:
            hub = Hub(self.client, self.settings.catalog)
            try:
                return await asyncio.wait_for(scene(hub), 30)
            finally:
                await asyncio.to_thread(hub.close)

        return asyncio.run(play())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.client.close()
    made.engine.dispose()


def question(key: str, **more: Any) -> Decision:
    return Decision(kind="question", prompt=f"What about {key}?", output=AB, key=key, **more)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("tell", [True, False])
def test_hundreds_wait_on_two_threads_and_each_hears_of_its_own(house: House, tell: bool) -> None:
    async def scene(hub: Hub) -> None:
        before = threading.active_count()
        tickets = await asyncio.gather(*(hub.submit(question(f"q{i}")) for i in range(300)))
        assert threading.active_count() == before
        assert hub.waiting == 300
        house.settle(*(ticket.id for ticket in tickets), tell=tell)
        ended = await asyncio.gather(*(ticket.outcome for ticket in tickets))
        assert [one.settled.key for one in ended] == [f"q{i}" for i in range(300)]
        assert {one.settled.status for one in ended} == {Status.CANCELLED}
        assert hub.waiting == 0

    house.run(scene)


def test_what_comes_in_together_is_submitted_together(house: House) -> None:
    async def scene(hub: Hub) -> None:
        await asyncio.gather(*(hub.submit(question(f"q{i}")) for i in range(100)))

    house.run(scene)
    assert len(rows(house.engine, "decision")) == 100
    # The stand-in broker takes every message, so that none is left; ids come in submissions' order.
    assert rows(house.engine, "outbox") == []


def test_one_bad_decision_does_not_spoil_its_neighbours(house: House) -> None:
    async def scene(hub: Hub) -> list[Any]:
        wrong = question("bad", preferences=Preferences(force_tier="nowhere"))
        asked = [question("a"), wrong, question("b")]
        return await asyncio.gather(*(hub.submit(d) for d in asked), return_exceptions=True)

    first, second, third = house.run(scene)
    assert isinstance(second, InputError)
    assert "nowhere" in str(second)
    assert first.id
    assert third.id
    assert [row["key"] for row in rows(house.engine, "decision")] == ["a", "b"]


def test_who_leaves_has_his_decision_cancelled(house: House) -> None:
    async def scene(hub: Hub) -> None:
        ticket = await hub.submit(question("left"))
        hub.leave(ticket)
        await until(lambda: house.states() == ["settled"])

    house.run(scene)


def test_who_is_cancelled_before_his_decision_is_written_leaves_nothing_open(house: House) -> None:
    async def scene(hub: Hub) -> None:
        submitting = asyncio.ensure_future(hub.submit(question("left")))
        await asyncio.sleep(0)
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)

    house.run(scene)
    assert set(house.states()) <= {"settled"}


def test_who_is_cancelled_just_as_his_decision_is_written_leaves_nothing_open(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(hub: Hub) -> None:
        submitting = asyncio.ensure_future(hub.submit(question("left")))
        written = hub._written

        def and_leave(batch: Any) -> None:
            written(batch)
            submitting.cancel()

        monkeypatch.setattr(hub, "_written", and_leave)
        with pytest.raises(asyncio.CancelledError):
            await submitting
        await until(lambda: house.states() == ["settled"])
        assert hub.waiting == 0

    house.run(scene)


def test_one_that_nobody_foresaw_does_not_spoil_its_neighbours(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = house.client.submit

    def overflow(decisions: Any) -> list[str]:
        if any(one.key == "bad" for one in decisions):
            raise OverflowError("too large")
        return submit(decisions)

    async def scene(hub: Hub) -> list[Any]:
        asked = [question(key) for key in ("a", "bad", "b")]
        return await asyncio.gather(*(hub.submit(d) for d in asked), return_exceptions=True)

    monkeypatch.setattr(house.client, "submit", overflow)
    first, second, third = house.run(scene)
    assert isinstance(second, OverflowError)
    assert first.id
    assert third.id


def test_a_stack_that_cannot_be_asked_how_it_is_ends_no_thread(house: House) -> None:
    async def scene(hub: Hub) -> None:
        asked = 0

        def failure() -> str | None:
            nonlocal asked
            asked += 1
            raise OSError("no such file")

        house.client._failure = failure
        ticket = await hub.submit(question("a"))
        await until(lambda: asked > 1)
        house.settle(ticket.id)
        assert (await ticket.outcome).settled.status is Status.CANCELLED

    house.run(scene)


def test_a_message_that_makes_no_sense_deafens_nobody(house: House) -> None:
    async def scene(hub: Hub) -> None:
        heard: list[Any] = []
        hub._hear = lambda ids: heard.extend(ids) or []  # type: ignore[func-returns-value, method-assign, assignment]
        house.client.notices.pass_by(lambda ids: hub._hear(ids))  # type: ignore[arg-type]
        app, run = house.client._app, house.client.run.id
        exchange = settled_exchange(app)
        with app.connection_for_write() as connection, connection.Producer() as producer:
            for body in ({"run": run}, {"run": run, "ids": 5}, {"run": run, "ids": [{}]}):
                producer.publish(body, exchange=exchange, routing_key=run, declare=[exchange])
            producer.publish(b"\x80", exchange=exchange, routing_key=run,
                             content_type="application/x-python-serialize",
                             content_encoding="binary")  # fmt: skip
            producer.publish({"run": run, "ids": ["last"]}, exchange=exchange, routing_key=run)
        await until(lambda: "last" in heard)

    house.run(scene)


def test_a_decision_goes_on_as_long_as_somebody_waits_or_it_is_kept(house: House) -> None:
    async def scene(hub: Hub) -> None:
        first, second = [await hub.submit(question("shared")) for _ in range(2)]
        kept = await hub.submit(question("kept"), kept=True)
        assert first.id == second.id
        hub.leave(first)
        hub.leave(kept)
        await hub.submit(question("later"))  # by then, a cancellation would be through
        assert house.states() == ["queued", "queued", "queued"]
        hub.leave(second)
        await until(lambda: house.states() == ["settled", "queued", "queued"])

    house.run(scene)


def test_a_decision_that_settled_long_ago_is_told_at_once(house: House) -> None:
    async def scene(hub: Hub) -> Ticket:
        ticket = await hub.submit(question("old"))
        house.settle(ticket.id)
        await ticket.outcome
        watched = hub.watch(ticket.id)
        assert (await watched.outcome).settled.status is Status.CANCELLED
        again = await hub.submit(question("old"))
        assert (await again.outcome).settled.id == ticket.id
        return ticket

    house.run(scene)


def test_a_notice_that_comes_late_is_not_kept(house: House) -> None:
    async def scene(hub: Hub) -> None:
        ticket = await hub.submit(question("polled"))
        house.settle(ticket.id, tell=False)
        await ticket.outcome
        assert hub._hear([ticket.id, "another"]) == ["another"]
        assert hub._hear([ticket.id]) == [ticket.id]

    house.run(scene)


def test_a_stack_that_dies_ends_the_waiting(house: House) -> None:
    async def scene(hub: Hub) -> None:
        ticket = await hub.submit(question("lost"))
        house.fault = "the stack has ended: run `uptier up`"
        with pytest.raises(StackError, match="uptier up"):
            await ticket.outcome
        with pytest.raises(StackError):
            await hub.submit(question("next"))
        hub.leave(ticket)  # he was told that there will be no answer: nobody is to pay for one
        await until(lambda: house.states() == ["settled"])
        house.fault = None
        await until(lambda: hub.failure is None)
        await hub.submit(question("after"))

    house.run(scene)


def test_closing_tells_those_who_still_wait_and_cancels_what_was_left(house: House) -> None:
    async def scene() -> Ticket:
        hub = Hub(house.client, house.settings.catalog)
        waits, left = [await hub.submit(question(key)) for key in ("waits", "left")]
        hub.leave(left)
        await asyncio.to_thread(hub.close)
        with pytest.raises(StackError, match="closing"):
            await waits.outcome
        with pytest.raises(StackError, match="closing"):
            await hub.submit(question("late"))
        return waits

    asyncio.run(scene())
    assert house.states() == ["queued", "settled"]
