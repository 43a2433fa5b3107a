"""The command line: one line and an exit code for whatever goes wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import NoReturn

import pytest

from cli import models
from cli.main import COMMANDS, run

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bogus"], "bogus"),
        (["decide", "--bogus"], "--bogus"),
        (["decide"], "--prompt"),
        (["decide", "--prompt", "x", "--seed", "many"], "--seed"),
        (["models", "bogus"], "bogus"),
    ],
)
def test_a_wrong_command_line_gives_one_line_and_status_2(
    capsys: Captured, arguments: list[str], says: str
) -> None:
    assert run(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("uptier: ")
    assert says in lines[0]


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (("--strategy", "greedy"), ("strategy", "'greedy'", "local_first")),
        (("--weights", "cost"), ("--weights 'cost'", "NAME=NUMBER")),
        (("--weights", "cost=-1"), ("weights.cost", "'-1'", "greater than or equal to 0")),
        (("--weights", "cost=0,quality=0"), ("weights are all zero", "above 0")),
        (("--min-quality", "1.5"), ("min_quality", "1.5", "less than or equal to 1")),
        (("--max-latency", "0"), ("max_latency_ms", "greater than 0")),
        (("--max-cost", "-1"), ("max_cost_usd", "-1")),
        (("--preset", "lavish"), ("preset 'lavish'", "creator, enterprise")),
        (("--specialist", "chess"), ("specialist 'chess'", "choose one of general")),
        (("--adapter", "poems"), ("adapter 'poems'", "drop it")),
        (("--min-quality", "1", "--private"), ("no lane", "lower min_quality")),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_before_anything_starts(
    capsys: Captured, wish: tuple[str, ...], says: tuple[str, ...]
) -> None:
    assert run(["decide", "--prompt", "x", "--text", "--profile", "tiny", *wish]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert all(word in lines[0] for word in says), lines[0]


@pytest.mark.parametrize("arguments", [[], ["models"]])
def test_a_command_that_was_left_out_shows_what_there_is(
    capsys: Captured, arguments: list[str]
) -> None:
    assert run(arguments) == 2
    assert "Commands:" in capsys.readouterr().err


def interrupted(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize("command", ["pull", "prepare"])
def test_interrupted_work_on_weights_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, command: str
) -> None:
    monkeypatch.setattr(models, f"{command}_models", interrupted)
    assert run(["models", command, "--profile", "tiny"]) == 130
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1] == (
        "uptier: interrupted; run the same command again, it goes on where it stopped"
    )


def test_an_interrupted_simulation_says_how_to_resume_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("cli.simulate.load_settings", interrupted)
    assert run(["simulate"]) == 130
    assert "uptier simulate --resume" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_needs_no_statistics_does_not_wait_for_scipy(command: str) -> None:
    looks = (
        "import sys; from cli.main import run; "
        f"status = run([{command!r}, '--help']); sys.exit(status or 'scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"uptier {command}" in done.stdout


def test_the_help_names_every_command(capsys: Captured) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in shown] == []
