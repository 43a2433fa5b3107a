"""The main job, small: a simulated day on the real small model."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "cli.main", "simulate", "--profile", "tiny", "--json"]
KEYS = {
    "decisions", "escalated", "unsettled", "accuracy", "cost_usd", "all_cloud_cost_usd",
    "decisions_per_second", "latency_ms", "cache_share", "ledger",
}  # fmt: skip


def environment(data: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ANTHROPIC")}
    return kept | {"UPTIER_DATA_DIR": str(data)}


def simulate(data: Path, *more: str) -> dict[str, Any]:
    done = subprocess.run(
        [*COMMAND, *more], capture_output=True, text=True, env=environment(data), timeout=170,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def answers(data: Path) -> list[tuple[str, str, str]]:
    """Key, status and answer of every decision of the last run."""
    with sqlite3.connect(data / "ledger.db") as connection:
        return connection.execute(
            "select key, status, answer from decision where run_id = "
            "(select id from run order by created_at desc limit 1) order by key"
        ).fetchall()


@pytest.mark.usefixtures("smollm2")
@pytest.mark.timeout(400)
def test_a_small_day_settles_every_decision_and_repeats_itself(tmp_path: Path) -> None:
    reports = [simulate(tmp_path / name, "--agents", "2", "--seed", "7") for name in "ab"]
    first, second = reports
    assert first.keys() >= KEYS
    assert first["decisions"]["total"] >= 2 * 32
    assert (first["unsettled"], first["empty"]) == (0, 0)
    assert first["escalated"] >= 1
    assert "local_quality" in first["decisions"]["by_tier"]
    assert first["decisions"] == second["decisions"]
    assert first["simulation"] == second["simulation"]
    assert answers(tmp_path / "a") == answers(tmp_path / "b")
    assert not (tmp_path / "a" / "stack" / "stack.json").exists()


@pytest.mark.usefixtures("smollm2")
@pytest.mark.timeout(400)
def test_an_interrupted_day_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = simulate(tmp_path / "whole", "--agents", "2", "--seed", "5")
    process = subprocess.Popen(
        [*COMMAND, "--agents", "2", "--seed", "5"], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=environment(tmp_path / "cut"), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    ledger = tmp_path / "cut" / "ledger.db"
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and _settled(ledger) < 20:
            time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 130
    finally:
        process.kill()
    resumed = simulate(tmp_path / "cut", "--resume")
    assert resumed["simulation"] == whole["simulation"]
    assert answers(tmp_path / "cut") == answers(tmp_path / "whole")


def _settled(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    with sqlite3.connect(ledger) as connection:
        try:
            found = connection.execute("select count(*) from decision where state = 'settled'")
            return int(found.fetchone()[0])
        except sqlite3.OperationalError:
            return 0
