"""A simulated day whose producer, and with it the whole stack, is killed."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from config.settings import Settings, load_settings
from ledger.database import migrate, open_ledger
from ledger.runs import find_run
from tests.faults.books import audit, keep_trail
from tests.faults.ground import LEASE_S
from tests.faults.rounds import Rounds
from tests.faults.scene import Form, Place, scene
from workers.launch import process_environment

PROFILE = Path(__file__).with_name("day.toml")
AGENTS = 4
COMMAND = [sys.executable, "-m", "cli.main", "simulate", "--profile", str(PROFILE), "--json"]
DAY_WITHIN_S = 120.0
RESUMED_WITHIN_S = 30.0
"""From the command until the first new settlement: the whole stack is started anew."""


@scene(
    17, "the producer killed in the middle of a day",
    long=Form(rounds=10), short=Form(rounds=1), bound_s=RESUMED_WITHIN_S, place=Place.NONE,
)  # fmt: skip
def day_cut(rounds: Rounds) -> None:
    """Recovery: from the start of ``simulate --resume`` until the next decision is settled. The
    stack dies with the producer. The end must be that of a day that nobody cut."""
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="uptier-faults-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        whole = _settings(folder / "whole")
        undisturbed = undo.enter_context(_started(whole, "--agents", str(AGENTS)))
        wanted: Any = None
        for number, _ in enumerate(rounds.rounds()):
            settings = _settings(folder / str(number))
            result = _cut_one(rounds, settings)
            wanted = wanted or _result(whole, _finish(undisturbed))
            if result != wanted:
                rounds.complain(f"day {number}, which was cut, ended otherwise than the whole one")
            _go_through_books(rounds, settings)


def _cut_one(rounds: Rounds, settings: Settings) -> Any:
    total = AGENTS * 32
    cut_at = rounds.rng.randrange(total // 5, total * 4 // 5)
    with _started(settings, "--agents", str(AGENTS)) as process:
        _wait_settled(settings, cut_at, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    settled = _settled(settings)
    rounds.tell(f"killed with {settled} of about {total} decisions settled")
    since = time.monotonic()
    with _started(settings, "--resume") as resumed:
        _wait_settled(settings, settled + 1, resumed)
        rounds.outcome.recoveries_s.append(time.monotonic() - since)
        return _result(settings, _finish(resumed))


def _go_through_books(rounds: Rounds, settings: Settings) -> None:
    engine = open_ledger(settings)
    run = find_run(engine)
    assert run is not None
    rounds.enter(audit(engine, run.id, {}))
    engine.dispose()


def _settings(data_dir: Path) -> Settings:
    settings = load_settings(
        profile=str(PROFILE), data_dir=data_dir, lease_s=LEASE_S, stale_after_s=3, leader_lease_s=3
    )
    migrate(settings)
    engine = open_ledger(settings)
    keep_trail(engine)
    engine.dispose()
    return settings


@contextmanager
def _started(settings: Settings, *more: str) -> Iterator[subprocess.Popen[str]]:
    inherited = process_environment(settings)
    environment = {k: v for k, v in inherited.items() if not k.startswith("ANTHROPIC")}
    process = subprocess.Popen(
        [*COMMAND, *more], env=environment | {"PYTHONUNBUFFERED": "1"}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _finish(process: subprocess.Popen[str]) -> Any:
    said, errors = process.communicate(timeout=DAY_WITHIN_S)
    if process.returncode != 0:
        raise RuntimeError(f"simulate ended with {process.returncode}: {errors[-500:]}")
    return json.loads(said)


def _result(settings: Settings, report: Any) -> Any:
    """What a day comes to: its summary, and each decision's status and answer."""
    rows = _query(settings, "SELECT key, kind, status, answer FROM decision ORDER BY key")
    return report["simulation"], rows


def _settled(settings: Settings) -> int:
    return int(_query(settings, "SELECT count(*) FROM decision WHERE state = 'settled'")[0][0])


def _wait_settled(settings: Settings, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DAY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        if _settled(settings) >= count:
            return
        time.sleep(0.05)


def _query(settings: Settings, statement: str) -> list[Any]:
    connection = sqlite3.connect(settings.data_dir / "ledger.db", timeout=15)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()
