"""Recordings: what was answered once is answered again, to the byte, without anybody asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_simulate import DAY, cut, embedded, environment, rows

SHAPE = ("--agents", "6", "--teams", "3", "--seed", "5")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The day's profile with one lane much slower than the other."""
    text = DAY.read_text()
    first, second = text.split("[models.quality.script]")
    path = tmp_path_factory.mktemp("slow") / "slow.toml"
    path.write_text(f"{first}[models.quality.script]{second.replace('0.003', '0.05', 1)}")
    return path


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A free run's folder with its recording and state, and its report."""
    folder = tmp_path_factory.mktemp("lived")
    more = ("--order", "free", "--record", str(folder / "day.gz"), "--state", str(folder / "state"))
    return folder, simulated(folder, *SHAPE, *more)


def run(folder: Path, *words: str, profile: Path = DAY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "simulate", "--profile", str(profile), "--json", *words],
        capture_output=True, text=True, env=environment(embedded(folder)), timeout=400,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def simulated(folder: Path, *words: str, profile: Path = DAY) -> dict[str, Any]:
    done = run(folder, *words, profile=profile)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(900)
def test_a_recording_gives_the_same_state_to_the_byte(
    lived: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, first = lived
    for number, source in enumerate((str(folder / "day.gz"), first["run"])):
        state, data = tmp_path / f"state{number}", tmp_path if number == 0 else folder
        again = simulated(data, "--replay", source, "--state", str(state))
        assert state.read_bytes() == (folder / "state").read_bytes()
        assert again["simulation"] == first["simulation"]
        assert again["decisions"]["by_status"] == {"replayed": first["simulation"]["decisions"]}
        assert (again["cost_usd"], again["unsettled"]) == (0, 0)
    # Nobody was asked: there was neither a worker nor a broker.
    assert rows(embedded(tmp_path), "select count(*) from worker") == [(0,)]
    assert not (tmp_path / "stack").exists()


@pytest.mark.timeout(900)
def test_other_speeds_and_another_order_lead_to_the_same_state(
    lived: tuple[Path, dict[str, Any]], slow: Path, tmp_path: Path
) -> None:
    folder, first = lived
    step = simulated(tmp_path, *SHAPE, "--order", "step", "--state", str(tmp_path / "state"),
                     profile=slow)  # fmt: skip
    assert step["simulation"] == first["simulation"]
    assert (tmp_path / "state").read_bytes() == (folder / "state").read_bytes()


@pytest.mark.timeout(900)
def test_what_is_not_recorded_is_a_miss_or_asked(
    lived: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, first = lived
    source = str(folder / "day.gz")
    missed = run(tmp_path, "--replay", source, "--days", "2")
    assert missed.returncode == 2
    [line] = [text for text in missed.stderr.splitlines() if text.startswith("uptier: ")]
    assert re.search(r"has no answer to d001\.t00\.\S+ \(\w+\): .*--or-live", line)
    both = simulated(tmp_path, "--replay", source, "--or-live", "--days", "2", "--order", "free")
    statuses = both["decisions"]["by_status"]
    assert statuses["replayed"] == first["simulation"]["decisions"]
    assert sum(statuses.values()) >= 2 * statuses["replayed"]
    assert both["unsettled"] == 0


@pytest.mark.timeout(900)
def test_an_interrupted_free_run_goes_on_to_the_same_state(
    lived: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, first = lived
    cut(embedded(tmp_path), *SHAPE, "--order", "free", profile=str(DAY))
    resumed = simulated(tmp_path, "--resume", "--state", str(tmp_path / "state"))
    assert resumed["simulation"] == first["simulation"]
    assert (tmp_path / "state").read_bytes() == (folder / "state").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--or-live",), "--or-live has nothing to fall back from"),
        (("--replay", "nothing"), "'nothing' is neither a file nor a simulation's run"),
        (("--replay", __file__), "cannot be read"),
        (("--record", "/nowhere/x"), "--record /nowhere/x: name a file in a folder"),
        (("--state", "/"), "--state /: name a file in a folder"),
        (("--teams", "9", "--agents", "3"), "teams = 9: there are only 3 agents"),
    ],
)
def test_wrong_wishes_are_refused_in_one_line(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = run(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert message in line


@pytest.mark.usefixtures("smollm2")
@pytest.mark.timeout(900)
def test_the_example_of_a_mesa_model_runs(tmp_path: Path) -> None:
    pytest.importorskip("mesa")
    example = Path(__file__).parents[2] / "docs" / "examples" / "mesa_clerks.py"
    done = subprocess.run(
        [sys.executable, str(example), "--profile", "tiny", "--clerks", "3", "--steps", "2"],
        capture_output=True, text=True, timeout=400, check=False, stdin=subprocess.DEVNULL,
        env=environment(embedded(tmp_path)) | {"PYTHONPATH": str(example.parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"2 steps, \d+ cases closed\n", done.stdout)


@pytest.mark.parametrize("words", [("--clerks", "1"), ("--steps", "0")])
def test_the_example_refuses_an_office_in_which_nothing_can_happen(words: tuple[str, str]) -> None:
    pytest.importorskip("mesa")
    example = Path(__file__).parents[2] / "docs" / "examples" / "mesa_clerks.py"
    done = subprocess.run(
        [sys.executable, str(example), *words], capture_output=True, text=True, timeout=60,
        check=False, env={**os.environ, "PYTHONPATH": str(example.parents[2])},
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "two --clerks" in done.stderr
