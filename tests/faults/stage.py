"""What a scene has to hand: a run of its own, questions, a load, and a watch for recovery."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from config.catalog import Catalog
from config.queues import QUALITY
from ledger.clock import now
from ledger.database import reading
from ledger.runs import start_run
from producers.client import Client
from routing.decision import Decision
from tests.faults.books import audit
from tests.faults.ground import LEASE_S, Ground, Victim
from tests.faults.load import BATCH, Load, Questions
from tests.faults.outcome import Outcome
from tests.faults.rounds import Rounds, Tell
from tests.faults.scene import Form, Scene

POLL_S = 0.05
BUSY_WITHIN_S = 2.0
EMPTY_QUEUES_WITHIN_S = 10.0
BEFORE_S = 0.8
"""How long a load runs before a fault, so that decisions are under way."""


class Stage(Rounds):
    """One scene being played on a ground; the books are gone through when it ends."""

    def __init__(
        self, scene: Scene, form: Form, ground: Ground, rng: random.Random, tell: Tell
    ) -> None:
        super().__init__(scene, form, rng, tell)
        self.ground = ground
        self.run = start_run(
            ground.engine, mode="faults", profile=ground.settings.profile, now=now()
        )
        self.questions = Questions(self.run.id[-8:], rng)
        self.client = Client(ground.settings, ground.broker_url, self.run)
        self.may_end: set[str] = set()
        """Ids of decisions that may end without an answer."""
        self._ids: list[str] = []
        self._loads: list[Load] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.close()

    def before_round(self) -> None:
        """Every worker has to serve."""
        self.wait_ready()

    def submit(self, decisions: Sequence[Decision]) -> list[str]:
        """Submit, and remember the ids for the books."""
        ids = self.client.submit(decisions)
        self._ids += ids
        return ids

    @contextmanager
    def load(self, batch: Callable[[], Sequence[Decision]] | None = None) -> Iterator[Load]:
        """Questions of all sorts, from a moment before the block until its end."""
        load = Load(self.client, batch or (lambda: self.questions.mixed(BATCH)))
        self._loads.append(load)
        load.start()
        try:
            time.sleep(BEFORE_S)
            yield load
        finally:
            load.stop()

    def open(self) -> list[str]:
        """Ids of this run's decisions that are not settled."""
        query = text("SELECT id FROM decision WHERE run_id = :run AND state != 'settled'")
        return self._read(query, {"run": self.run.id})

    def is_running(self, decision_id: str) -> bool:
        """Whether a worker is at it."""
        query = text("SELECT id FROM decision WHERE id = :id AND state = 'running'")
        return bool(self._read(query, {"id": decision_id}))

    def wait(self, ids: Collection[str], since: float) -> float:
        """Wait until all are settled; seconds from ``since`` (monotonic) until then."""
        waiting = set(ids)
        while waiting and time.monotonic() - since < self.form.patience_s:
            waiting &= set(self.open())
            if waiting:
                time.sleep(POLL_S)
        return time.monotonic() - since

    def recover(self, ids: Collection[str], since: float) -> None:
        """Wait until all are settled and note how long after ``since`` that was."""
        self.outcome.recoveries_s.append(self.wait(ids, since))

    def probe(self, since: float, kind: str = "question") -> None:
        """Note how long after ``since`` a decision submitted now is settled."""
        self.recover(self.submit([self.questions.one(kind)]), since)

    def wait_ready(self, within_s: float = 60.0) -> None:
        """Wait until every worker serves."""
        deadline = time.monotonic() + within_s
        while not self.ground.all_ready():
            if time.monotonic() > deadline:
                self.complain(f"not all workers are ready after {within_s:.0f} s: "
                              f"{self.ground.failure()}")  # fmt: skip
                return
            time.sleep(POLL_S)

    def victim(self, *lanes: str) -> Victim:
        """A random worker process."""
        return self.rng.choice(self.ground.victims(lanes=lanes))

    def wait_busy(self, lane: str) -> None:
        """Wait until that lane has something in its hands, so that a fault finds it at work."""
        state = "answered" if lane == QUALITY else "running"
        query = text("SELECT id FROM decision WHERE state = :state AND (:lane = lane OR :all)")
        deadline = time.monotonic() + BUSY_WITHIN_S
        values = {"state": state, "lane": lane, "all": lane == QUALITY}
        while time.monotonic() < deadline and not self._read(query, values):
            time.sleep(0.005)

    def strike(self, victim: Victim, number: signal.Signals) -> float:
        """Send a signal; the moment before it (monotonic)."""
        self.tell(f"{number.name} to {victim.name}")
        since = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, number)
        return since

    def finish(self) -> Outcome:
        """Wait for the last decision, go through the books, and give the outcome."""
        self.wait(self.open(), time.monotonic())
        if (failure := self.ground.failure()) is not None:
            self.complain(f"the stack gave up: {failure}")
        self._look_into_broker()
        submitted = [*self._ids, *(i for load in self._loads for i in load.ids)]
        bills = self.ground.provider.micros_by_key()
        found = audit(
            self.ground.engine, self.run.id, bills, submitted=submitted, may_end=self.may_end,
            once=_never_repeating(self.ground.settings.catalog),
        )  # fmt: skip
        self.enter(found)
        return self.outcome

    def _look_into_broker(self) -> None:
        """No message waits; what a dead worker held can do nothing any more."""
        deadline = time.monotonic() + EMPTY_QUEUES_WITHIN_S
        while (waiting := self.ground.broker.waiting()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if waiting:
            self.complain(f"messages still wait in the broker: {waiting}")
        still_open = set(self.open())
        for held in self.ground.broker.held():
            if still_open & set(held.ids):
                self.complain(f"a message of unsettled decisions is unacknowledged: {held}")

    def _read(self, query: Any, values: dict[str, Any]) -> list[str]:
        while True:
            try:
                with reading(self.ground.engine) as connection:
                    return list(connection.execute(query, values).scalars())
            except DBAPIError:  # a full disk or a locked ledger; that is what some scenes are about
                time.sleep(POLL_S)


def _never_repeating(catalog: Catalog) -> list[str]:
    paid = {n: lane for n, lane in catalog.lanes.items() if catalog.lane_model(n).provider}
    return [name for name, lane in paid.items() if not lane.repeat_unknown_charges]


def lease_bound(extra_s: float = 15.0) -> float:
    """The longest recovery of work whose worker died: its lease ends first."""
    return LEASE_S + extra_s


def ids_of(*groups: Iterable[str]) -> set[str]:
    """All ids of the groups."""
    return {i for group in groups for i in group}
