"""When a daemon goes on: its kill file, its rate, the mark of its budget."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from cli.daemon import alerts
from ledger.budgets import Bound, reserve, settle
from ledger.clock import SECOND
from ledger.database import writing
from producers.swarm.daemon import Ending
from producers.swarm.pace import Pace
from routing.decision import Decision
from tests.unit.daemons import (
    START,
    closed,
    decide,
    does,
    ground,
)  # fmt: skip

__all__ = ["closed"]


def test_the_kill_file_stops_it_before_the_next_action(tmp_path: Path) -> None:
    here = ground(tmp_path, does("read_file"), max_iterations=9)
    here.kill_file.touch()
    assert here.work() is Ending.KILLED
    assert (here.steps, here.answers.asked) == ([], [])
    here.kill_file.unlink()

    def answer(decision: Decision) -> str | None:
        if decision.key.startswith("i00002"):
            here.kill_file.touch()
        return does("search_text", query="x")(decision)

    here.answers._answer = answer
    assert here.work() is Ending.KILLED
    assert len(here.steps) == 2


def test_iterations_keep_to_their_rate(tmp_path: Path) -> None:
    here = ground(tmp_path, does("search_text", query="x"), max_iterations=5)
    here.work(per_hour=2)
    starts = [s.created_at for s in here.steps]
    assert len(starts) == 5
    for earlier, later in zip(starts, starts[2:], strict=False):
        assert later - earlier >= 3_600 * SECOND
    assert sum(here.clock.slept) == pytest.approx(7_200, abs=2)
    assert max(here.clock.slept) <= 1.0


def test_a_clock_that_was_put_back_costs_an_hour_at_most(tmp_path: Path) -> None:
    here = ground(tmp_path, does("search_text", query="x"), max_iterations=4)
    here.work(per_hour=4)
    here.clock.now -= 24 * 3_600 * SECOND
    here.order = replace(here.order, max_iterations=8)
    here.work(per_hour=4)
    assert sum(here.clock.slept) == pytest.approx(3_600, abs=2)
    here.order = replace(here.order, max_iterations=12)
    here.clock.slept.clear()
    sleep, back = here.clock.sleep, iter([3 * 3_600 * SECOND])

    def put_back(seconds: float) -> None:
        sleep(seconds)
        here.clock.now -= next(back, 0)

    here.clock.sleep = put_back  # type: ignore[method-assign]
    here.work(per_hour=4)
    assert sum(here.clock.slept) == pytest.approx(3_600, abs=3)


def test_what_a_daemons_daemon_does_counts_in_the_rate(tmp_path: Path) -> None:
    here = ground(tmp_path, does("spawn_daemon", objective="sub"))
    here.work()
    decide(here, approve=True)
    here.order = replace(here.order, max_iterations=3)
    here.work(per_hour=2)
    with here.engine.connect() as connection:
        found = connection.execute(text("select created_at from swarm_action")).scalars()
        starts = sorted(found)
    assert len(starts) > 5
    for earlier, later in zip(starts, starts[2:], strict=False):
        assert later - earlier >= 3_600 * SECOND


def test_the_kill_file_ends_a_long_sleep(tmp_path: Path) -> None:
    here = ground(tmp_path, does("search_text", query="x"), max_iterations=5)
    here.clock.sleep = lambda seconds: here.kill_file.touch()  # type: ignore[method-assign]
    assert here.work(per_hour=1) is Ending.KILLED
    assert len(here.steps) == 1


def test_the_rate_counts_what_earlier_processes_did(tmp_path: Path) -> None:
    pace = Pace(3, tmp_path / "kill", lambda: START, lambda seconds: None)
    assert pace.due_at([1, 2]) == 0
    assert pace.due_at([5, 1, 9, 7]) == 5 + 3_600 * SECOND
    assert Pace(None, tmp_path, lambda: 0, print).due_at([1, 2, 3]) == 0


def test_a_budget_past_its_mark_is_told_of_once(tmp_path: Path) -> None:
    here = ground(tmp_path, does("read_file"))
    today = datetime.now(UTC).date().isoformat()
    bound, told = Bound(f"day:{today}", 10_000_000), set[str]()
    for micros, news in ((7_900_000, 0), (200_000, 1), (100_000, 0)):
        with writing(here.engine) as connection:
            assert reserve(connection, [bound], micros) is None
            settle(connection, [bound.scope], micros, micros)
        assert len(alerts(here.engine, here.run.id, 0.8, told)) == news
