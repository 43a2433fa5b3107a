"""The live view: what it tells is what the ledger holds, its queries are bounded, q leaves it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import event, text

from cli import main
from cli.top_screen import screen
from config.errors import ConfigurationError
from config.settings import Settings
from ledger import lanes, pulse
from ledger.calls import UNKNOWN
from ledger.clock import SECOND, now
from ledger.database import writing
from ledger.outbox import new_id
from ledger.pulse import Books, first_id, spent, take_pulse
from ledger.tables import TABLES
from ledger.workers import Life, announce
from routing.decision import ChoiceOutput
from tests.unit.house import House
from tests.unit.ledgers import rows
from tests.unit.test_run_page import LINES, PROFILE, TOP
from workers.glance_views import Glance
from workers.looking import Looker

AB = ChoiceOutput(labels=("A", "B"))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, PROFILE + LINES, top=TOP)
    yield made
    made.close()


def drawn(found: Glance, width: int = 150) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(screen(found, width))
    output: Any = console.file
    return str(output.getvalue())


def test_an_id_begins_with_its_time() -> None:
    before = now()
    one = new_id()
    assert first_id(before) <= one < first_id(now() + SECOND)


def test_a_look_tells_what_waits_and_for_how_long(house: House) -> None:
    for number in range(3):
        house.submit("question", f"easy {number}", AB)
    with writing(house.engine) as connection:
        connection.execute(text("UPDATE decision SET queued_at = queued_at - 40000000"))
    with Looker(house.settings) as looker:
        found = looker.look()
    queues = {one.name: one for one in found.queues}
    assert queues["tier1"].waiting == 3
    assert queues["tier1"].oldest_s == pytest.approx(40, abs=5)
    assert queues["tier1"].messages is None, "no broker is there to be asked"
    assert queues["tier2"].waiting == 0
    assert {lane.name: lane.state for lane in found.lanes} == {
        "tier1": "no worker", "tier2": "no worker",
    }  # fmt: skip
    assert found.stack == "down"
    assert found.rates.settled_per_s is None


def test_answers_that_wait_for_the_check_are_the_quality_queue(house: House) -> None:
    house.submit("question", "easy", AB)
    house.deliver(house.waiting.popleft())
    with Looker(house.settings) as looker:
        quality = next(one for one in looker.look().queues if one.name == "quality")
    assert quality.waiting == 1
    assert quality.oldest_s == pytest.approx(0, abs=5)


def test_rates_are_changes_between_looks_and_shares_are_those_of_late(house: House) -> None:
    moments = [now()]
    with Looker(house.settings, clock=lambda: moments[-1]) as looker:
        looker.look()
        for number in range(3):
            house.ask("question", f"easy {number}", AB)
        house.ask("question", "hard", AB)
        moments.append(max(now(), moments[0] + 2 * SECOND))
        found = looker.look()
    seconds = (moments[1] - moments[0]) / SECOND
    assert found.rates.settled_per_s == pytest.approx(4 / seconds)
    assert found.rates.accepted_share == pytest.approx(4 / 5)
    assert found.rates.climbed_share == pytest.approx(1 / 4)
    first = next(lane for lane in found.lanes if lane.name == "tier1")
    assert first.answers_per_s == pytest.approx(4 / 60)
    assert first.accepted_share == pytest.approx(3 / 4)


def test_workers_are_told_by_their_signs_of_life(house: House) -> None:
    announce(house.engine, Life("t1", "tier1-1", "tier1"), "ready", {"tokens_per_s": 1234.0})
    announce(house.engine, Life("t2", "tier2-gpu0", "tier2"), "ready")
    gone = text("UPDATE worker SET heartbeat_at = heartbeat_at - 31000000 WHERE token = 't2'")
    with writing(house.engine) as connection:
        connection.execute(gone)
    with Looker(house.settings) as looker:
        found = looker.look()
    assert {lane.name: lane.state for lane in found.lanes} == {
        "tier1": "serving", "tier2": "no worker",
    }  # fmt: skip
    assert [(w.name, w.pid, w.state) for w in found.workers] == [("tier1-1", os.getpid(), "ready")]
    shown = drawn(found)
    assert "tier1-1" in shown
    assert "1,234" in shown


def test_supervised_processes_and_closed_lanes_are_told(house: House) -> None:
    announce(house.engine, Life("t1", "tier1-1", "tier1"), "ready")
    row = {"lane": "tier1", "state": "ready", "placement": "GPU 1", "restarts": 2,
           "reason": "it died"}  # fmt: skip
    broker = row | {"name": "broker", "lane": "", "pid": 7, "placement": "", "restarts": 1}
    failed = row | {"name": "tier2-1", "lane": "tier2", "state": "failed", "pid": None}
    worker = row | {"name": "tier1-1", "pid": os.getpid()}
    lanes.write_supervised(house.engine, "here", [worker, broker, failed], now())
    lanes.take_out(house.engine, "tier2", lanes.Standing.DOWN, "started in vain", "here", now())
    with Looker(house.settings) as looker:
        found = looker.look()
    workers = {one.name: one for one in found.workers}
    assert (workers["tier1-1"].restarts, workers["tier1-1"].placement) == (2, "GPU 1")
    assert (workers["broker"].state, workers["broker"].restarts) == ("ready", 1)
    assert workers["tier2-1"].state == "failed"
    assert [one.state for one in found.lanes] == ["serving", "closed"]
    assert "lane tier2 is down: started in vain" in drawn(found)


def test_a_narrow_terminal_sees_what_matters_in_full(house: House) -> None:
    announce(house.engine, Life("t1", "tier1-1", "tier1"), "ready", {"tokens_per_s": 1234.0})
    with Looker(house.settings) as looker:
        shown = drawn(looker.look(), width=80)
    assert all(len(line) <= 80 for line in shown.splitlines())
    for words in ("tier1-1", "serving", "no worker", "accepted", "restarts", str(os.getpid())):
        assert words in shown
    assert "1,234" not in shown


def paid_attempt(house: House, decision: str, at: int, **values: Any) -> None:
    row = rows(house.engine, "attempt")[0] | {
        "id": first_id(at) + os.urandom(10).hex(), "decision_id": decision, "lane": "tier2",
        "number": len(rows(house.engine, "attempt")) + 1, "created_at": at, "outcome": "answered",
        "cost_micros": 0,
    } | values  # fmt: skip
    with writing(house.engine) as connection:
        connection.execute(TABLES.tables["attempt"].insert().values(**row))


def test_todays_books_are_the_same_whether_kept_or_made_anew(house: House) -> None:
    one = house.submit("question", "easy", AB)
    house.work()
    day = 20_000 * pulse.DAY_US
    books = Books(house.engine, ["tier2"])
    for minutes in range(0, 120, 10):
        at = day + minutes * 60 * SECOND
        paid_attempt(house, one, at, cost_micros=1_000 + minutes)
        if minutes % 30 == 0:
            paid_attempt(house, one, at + 1000, outcome=UNKNOWN, estimated_micros=7)
        today, per_hour = books.look(at + SECOND)
        assert today == spent(house.engine, day, at + SECOND, ["tier2"])
    assert today.micros == sum(1_000 + minutes for minutes in range(0, 120, 10))
    assert (today.unknown, today.unknown_micros) == (4, 28)
    assert per_hour == 4 * (1_110 + 1_100)
    tomorrow, _ = books.look(day + pulse.DAY_US)
    assert tomorrow == pulse.Spent()
    assert spent(house.engine, day, day + pulse.DAY_US, []) == pulse.Spent()


def test_looking_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "MOST_OPEN", 4)
    monkeypatch.setattr(pulse, "MOST_RECENT", 3)
    for number in range(5):
        house.ask("question", f"easy {number}", AB)
    for number in range(6):
        house.submit("question", f"more {number}", AB)
    found = take_pulse(house.engine, now())
    [waiting] = found.waiting
    assert (waiting.queued, found.capped) == (4, True)
    assert sum(one.answered for one in found.recent) == 3
    assert found.window_us < pulse.WINDOW_US


def test_no_query_of_a_look_walks_over_attempts(house: House) -> None:
    """What is recent is found by its key, so that a large ledger costs no more than a small one."""
    house.ask("question", "easy", AB)
    said: list[tuple[str, Any]] = []

    @event.listens_for(house.engine, "before_cursor_execute")
    def _note(_c: Any, _cursor: Any, query: str, parameters: Any, *_: Any) -> None:
        said.append((query, parameters))

    take_pulse(house.engine, now())
    spent(house.engine, now() - SECOND, now(), ["tier2"])
    event.remove(house.engine, "before_cursor_execute", _note)
    for query, parameters in said:
        with house.engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", parameters).all()
        walked = [row.detail for row in plan if re.match("SCAN (attempt|decision)", row.detail)]
        by_state = [w for w in walked if "COVERING INDEX ix_decision_" in w]
        assert walked == by_state, query  # the count of all decisions by state
        if "sum(attempt.cost_micros)" in query:
            assert "ix_attempt_paid" in plan[0].detail


def test_a_ledger_that_goes_away_is_a_problem_and_not_an_end(house: House) -> None:
    with Looker(house.settings) as looker:
        before = looker.look()
        with writing(house.engine) as connection:
            connection.execute(text("ALTER TABLE attempt RENAME TO gone"))
        found = looker.look()
    assert any("cannot be used" in problem for problem in found.problems)
    assert found.queues == before.queues
    assert "cannot be used" in drawn(found)


def test_without_a_ledger_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="uptier up"):
        Looker(Settings(data_dir=tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_names_and_reasons_are_not_taken_for_markup(house: House) -> None:
    announce(house.engine, Life("t", "[red]evil[/red]\x1b[2J", "tier1"), "[bold]ready")
    with Looker(house.settings) as looker:
        shown = drawn(looker.look())
    assert "[red]evil[/red]\\x1b[2J" in shown


def test_once_and_json_print_one_look(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(house.settings.data_dir))
    monkeypatch.setenv("UPTIER_PROFILE", house.settings.profile)
    house.ask("question", "easy", AB)
    assert main.run(["top", "--json", "--every", "0.2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decisions"] == {"settled": 1}
    assert told["rates"]["settled_per_s"] == 0
    assert Glance.model_validate(told).profile == house.settings.profile
    assert main.run(["top", "--once", "--every", "0.2"]) == 0
    assert "queues" in capsys.readouterr().out


def test_q_leaves_the_live_view_and_the_terminal_is_as_before(house: House) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "UPTIER_DATA_DIR": str(house.settings.data_dir),
                   "UPTIER_PROFILE": house.settings.profile, "TERM": "xterm-256color",
                   "COLUMNS": "140", "LINES": "45", "PYTHONPATH": str(ROOT)}  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "top", "--every", "0.5"],
        stdin=slave, stdout=slave, stderr=subprocess.STDOUT, env=environment,
    )  # fmt: skip
    try:
        seen = _read_until(master, b"q leaves")
        assert b"\x1b[?1049h" in seen, "on a screen of its own"
        os.write(master, b"q")
        assert process.wait(20) == 0
        assert b"\x1b[?1049l" in _read_until(master, b"\x1b[?1049l")
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def _read_until(descriptor: int, words: bytes, timeout_s: float = 40) -> bytes:
    seen, deadline = b"", time.monotonic() + timeout_s
    while words not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([descriptor], [], [], 0.2)[0]:
            seen += os.read(descriptor, 65_536)
    return seen
