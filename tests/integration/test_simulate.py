"""The main job, small: a simulated day on the real small model, and on scripts at every place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger.database import open_ledger, reading
from tests.integration.places import Place

DAY = Path(__file__).parents[1] / "faults" / "day.toml"
KEYS = {
    "decisions", "escalated", "unsettled", "accuracy", "cost_usd", "all_cloud_cost_usd",
    "decisions_per_second", "latency_ms", "cache_share", "ledger",
}  # fmt: skip
OUTCOMES: dict[str, Any] = {}
"""What the same day came to at the first place that lived it."""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", *words]


def environment(place: Place) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ANTHROPIC")}
    return kept | place.env


def run(place: Place, *words: str) -> str:
    done = subprocess.run(
        command(*words), capture_output=True, text=True, env=environment(place), timeout=400,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def simulate(place: Place, *more: str, profile: str = "tiny") -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        run(place, "simulate", "--profile", profile, "--json", *more)
    )
    return report


def cut(place: Place, *more: str, profile: str = "tiny") -> None:
    """Start a simulation and interrupt it once 20 of its decisions are settled."""
    before = settled(place)
    process = subprocess.Popen(
        command("simulate", "--profile", profile, *more), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=environment(place), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and settled(place) < before + 20:
            time.sleep(0.05)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
    finally:
        process.kill()
        process.wait()


def rows(place: Place, query: str) -> list[Any]:
    engine = open_ledger(place.settings())
    try:
        with reading(engine) as connection:
            return list(connection.execute(text(query)).all())
    finally:
        engine.dispose()


def answers(place: Place) -> list[Any]:
    """Key, status and answer of every decision of the last run."""
    return rows(
        place,
        "select key, status, answer from decision where run_id = "
        "(select id from run order by created_at desc limit 1) order by key",
    )


def settled(place: Place) -> int:
    try:
        count: int = rows(place, "select count(*) from decision where state = 'settled'")[0][0]
    except DBAPIError:  # no tables yet
        return 0
    return count


def embedded(data_dir: Path) -> Place:
    return Place("embedded", {"data_dir": data_dir})


@pytest.fixture(scope="module")
def serving(place: Place) -> Iterator[None]:
    """Workers that stay up; at the embedded place each command starts its own."""
    if place.name == "embedded":
        yield
        return
    run(place, "up", "--profile", str(DAY))
    yield
    run(place, "down")


@pytest.mark.usefixtures("serving")
def test_a_day_is_the_same_at_every_place_also_when_it_is_interrupted(place: Place) -> None:
    day = ("--agents", "3", "--seed", "5")
    whole = simulate(place, *day, profile=str(DAY))
    assert (whole["unsettled"], whole["empty"]) == (0, 0)
    assert whole["simulation"] == OUTCOMES.setdefault("day", whole["simulation"])
    expected = answers(place)
    cut(place, *day, profile=str(DAY))
    resumed = simulate(place, "--resume", profile=str(DAY))
    assert resumed["simulation"] == whole["simulation"]
    assert answers(place) == expected


@pytest.mark.usefixtures("smollm2")
@pytest.mark.timeout(900)
def test_a_small_day_settles_every_decision_and_repeats_itself(tmp_path: Path) -> None:
    places = [embedded(tmp_path / name) for name in "ab"]
    first, second = (simulate(place, "--agents", "2", "--seed", "7") for place in places)
    assert first.keys() >= KEYS
    assert first["decisions"]["total"] >= 2 * 32
    assert (first["unsettled"], first["empty"]) == (0, 0)
    assert first["escalated"] >= 1
    assert "local_quality" in first["decisions"]["by_tier"]
    assert first["decisions"] == second["decisions"]
    assert first["simulation"] == second["simulation"]
    assert answers(places[0]) == answers(places[1])
    assert not (tmp_path / "a" / "stack" / "stack.json").exists()


@pytest.mark.usefixtures("smollm2")
@pytest.mark.timeout(900)
def test_an_interrupted_day_goes_on_to_the_same_end(tmp_path: Path) -> None:
    at_once, in_parts = embedded(tmp_path / "whole"), embedded(tmp_path / "cut")
    whole = simulate(at_once, "--agents", "2", "--seed", "5")
    cut(in_parts, "--agents", "2", "--seed", "5")
    resumed = simulate(in_parts, "--resume")
    assert resumed["simulation"] == whole["simulation"]
    assert answers(in_parts) == answers(at_once)
