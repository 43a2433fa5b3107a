"""``uptier simulate`` where nobody has to be asked: recordings replayed, and runs resumed."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cli import main
from config.load import load_catalog
from config.settings import Settings
from ledger.database import migrate, open_ledger
from ledger.recordings import Recorded, question_digest
from ledger.runs import find_run, start_run
from producers.recording import FORMAT
from producers.simulation.run import Simulation, SimulationConfig, run_simulation
from routing.decision import Decision, Settled, Status

DAY = Path(__file__).parents[1] / "faults" / "day.toml"
SHAPE = {"agents": 3, "days": 1, "seed": 5, "teams": 1}
MANNER = {"order": "step", "lead": 32, "replay": None, "or_live": False}


class Scribe:
    """Answers by the question's seed, and keeps what a recording would hold."""

    def __init__(self) -> None:
        self.said: list[Recorded] = []

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        return [self._settled(decision) for decision in decisions]

    def _settled(self, decision: Decision) -> Settled:
        labels = getattr(decision.output, "labels", ("As you like it.",))
        answer = labels[decision.seed % len(labels)]
        self.said.append(Recorded(decision.key, question_digest(decision), Status.ACCEPTED, answer,
                                  "tier1", None, 0))  # fmt: skip
        return Settled(id=decision.key, key=decision.key, kind=decision.kind,
                       status=Status.ACCEPTED, answer=answer)  # fmt: skip


@pytest.fixture(scope="module")
def lived() -> tuple[list[str], str]:
    """The lines of a recording, and the state that the recorded day ended in."""
    scribe = Scribe()
    simulation = Simulation(SimulationConfig(**SHAPE), load_catalog(str(DAY)))
    run_simulation(simulation, scribe)
    header = {"format": FORMAT, "config": SHAPE, "decisions": len(scribe.said)}
    lines = [json.dumps(one) for one in (header, *(asdict(said) for said in scribe.said))]
    return lines, simulation.state()


@pytest.fixture
def day(tmp_path: Path, lived: tuple[list[str], str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recording, in a folder in which commands run."""
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("UPTIER_PROFILE", str(DAY))
    monkeypatch.chdir(tmp_path)
    return recording(tmp_path / "day.gz", lived[0])


def recording(path: Path, lines: Sequence[str]) -> Path:
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def settings(folder: Path) -> Settings:
    return Settings(profile=str(DAY), data_dir=folder / "data")


def begun(folder: Path, now: int, **manner: Any) -> str:
    """A simulation that somebody has begun, and not ended."""
    migrate(settings(folder))
    engine = open_ledger(settings(folder))
    run = start_run(engine, mode="simulate", profile=str(DAY), now=now, seed=5,
                    config=SHAPE | MANNER | manner)  # fmt: skip
    engine.dispose()
    return run.id


def is_finished(folder: Path, run_id: str | None = None) -> bool:
    engine = open_ledger(settings(folder))
    run = find_run(engine, run_id, mode="simulate")
    engine.dispose()
    assert run is not None
    return run.finished_at is not None


def simulated(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main.run(["simulate", "--json", *map(str, words)]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main.run(["simulate", *map(str, words)]) == 2
    [line] = [text for text in capsys.readouterr().err.splitlines() if "uptier: " in text]
    return line


def test_a_recording_ends_in_the_recorded_state(
    day: Path, lived: tuple[list[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = simulated(capsys, "--replay", "day.gz", "--state", "state", "--order", "free")
    assert Path("state").read_text() == lived[1]
    assert found["decisions"]["by_status"] == {"replayed": 96}


def test_what_is_resumed_is_the_latest_that_was_not_ended(
    day: Path, tmp_path: Path, lived: tuple[list[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    cut = begun(tmp_path, 1, replay=str(day))
    assert simulated(capsys, "--replay", day)["run"] != cut  # a whole one in between
    found = simulated(capsys, "--resume", "--state", "state")
    assert found["run"] == cut
    assert Path("state").read_text() == lived[1]
    assert "no unfinished simulation" in refused(capsys, "--resume")


def test_a_recording_is_found_again_from_another_folder(
    day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = main.run

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cli.simulate._live", dies)
        assert real(["simulate", "--replay", "day.gz"]) == 130
    (tmp_path / "else").mkdir()
    os.chdir(tmp_path / "else")
    assert simulated(capsys, "--resume")["simulation"]["decisions"] == 96


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--agents", "9"), "drop --agents"),
        (("--order", "step", "--lead", "3"), "drop --order, --lead"),
        (("--replay", "day.gz", "--or-live"), "drop --replay, --or-live"),
    ],
)
def test_a_simulation_is_resumed_as_it_was_or_not_at_all(
    day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
    names: str,
) -> None:  # fmt: skip
    cut = begun(tmp_path, 1, replay=str(day))
    assert names in refused(capsys, "--resume", *words)
    assert not is_finished(tmp_path, cut)


def test_a_miss_leaves_nothing_to_resume(
    day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = begun(tmp_path, 1, replay=str(day))
    assert "has no answer to d001" in refused(capsys, "--replay", day, "--days", "2")
    assert is_finished(tmp_path)
    assert simulated(capsys, "--resume")["run"] == cut


@pytest.mark.parametrize("value", ["3", 2.5, None, True, [3]])
def test_a_recording_of_no_simulation_is_refused(
    day: Path, lived: tuple[list[str], str], capsys: pytest.CaptureFixture[str], value: object
) -> None:
    header = json.loads(lived[0][0])
    header["config"]["agents"] = value
    recording(day, [json.dumps(header), *lived[0][1:]])
    assert f"agents = {value!r}" in refused(capsys, "--replay", day)
