"""Counts on PostgreSQL, where transactions really run beside one another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config.settings import Settings
from ledger import lifecycle
from ledger.database import migrate, open_ledger
from ledger.metrics import catalog, totals
from ledger.runs import start_run
from ledger.workers import Life, announce
from tests.integration.conftest import not_here
from tests.integration.places import Absent, postgres
from tests.unit.ledgers import rows
from tests.unit.test_metrics import KINDS, answer, counted, page_of, rule, settings_of, submit


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with ExitStack() as undo:
        try:
            given = undo.enter_context(postgres(tmp_path))
        except Absent as error:
            not_here(str(error))
        found = settings_of(tmp_path, **given)
        migrate(found)
        yield found


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    found = open_ledger(settings)
    yield found
    found.dispose()


class Crowd:
    """Threads that write and fold at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._run = start_run(engine, mode="test", profile="tiny", now=0).id
        self._done = threading.Event()
        self.faults: list[BaseException] = []

    def work(self, name: str) -> None:
        for number in range(40):
            [one] = submit(self._engine, self._run, f"{name}{number}")
            if number % 4 == 0:
                lifecycle.cancel(self._engine, 50, ids=[one])

    def sweep(self) -> None:
        while not self._done.is_set():
            totals.fold(self._engine, KINDS, limit=7)

    def _told(self, task: Callable[..., None], *given: str) -> None:
        try:
            task(*given)
        except BaseException as error:
            self.faults.append(error)

    def run(self, look: Callable[[], None]) -> None:
        """All of them, until the writers are through; ``look`` is called meanwhile."""
        writers = [threading.Thread(target=self._told, args=(self.work, name)) for name in "abc"]
        sweepers = [threading.Thread(target=self._told, args=(self.sweep,)) for _ in range(2)]
        for thread in (*writers, *sweepers):
            thread.start()
        while any(writer.is_alive() for writer in writers):
            look()
        self._done.set()
        for thread in (*writers, *sweepers):
            thread.join()


def test_no_counter_falls_and_none_is_lost_while_all_write_and_fold(engine: Engine) -> None:
    crowd, seen = Crowd(engine), [0]

    def look() -> None:
        seen.append(sum(counted(engine, catalog.SUBMITTED).values()))
        assert seen[-1] >= seen[-2]

    crowd.run(look)
    assert not crowd.faults
    assert counted(engine, catalog.SUBMITTED) == {("question", "tier1"): 120}
    assert counted(engine, catalog.SETTLED) == {("question", "none", "cancelled"): 30}
    while totals.fold(engine, KINDS):
        pass
    assert rows(engine, "tally") == []
    assert counted(engine, catalog.SUBMITTED) == {("question", "tier1"): 120}


def test_the_page_is_read_from_postgres_too(engine: Engine, settings: Settings) -> None:
    run = start_run(engine, mode="test", profile="tiny", now=0).id
    one, *_ = submit(engine, run, "k", "l")
    answer(engine, one, "tier1", 20, cost_micros=500_000)
    rule(engine, one, passed=True, now=30)
    announce(engine, Life("a", "tier1-1", "tier1"), "ready", {"slots": 4.0})
    page = page_of(settings)
    assert page["uptier_ledger_up", ()] == 1
    assert page["uptier_cost_dollars_total", (("lane", "tier1"),)] == 0.5
    assert page["uptier_open_decisions", (("lane", "tier1"), ("state", "waiting"))] == 1
    assert page["uptier_workers_ready", (("lane", "tier1"),)] == 1
