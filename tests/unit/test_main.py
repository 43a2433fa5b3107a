"""The command line: one line and an exit code for whatever goes wrong."""

from __future__ import annotations

from typing import NoReturn

import pytest

from cli import models
from cli.main import run

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
