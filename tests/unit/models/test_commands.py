"""The commands of weights: list, pull, prepare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from tests.unit.gguf_file import write_gguf
from workers.models import weights_path

Captured = pytest.CaptureFixture[str]


def test_the_commands_pull_prepare_and_list(
    profile: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    weights = tmp_path / "own.gguf"
    write_gguf(weights)
    source = f'{{ kind = "file", path = "{weights}" }}'
    settings = profile(source, size=None, sha256=None, formats=("Q8_0",))
    monkeypatch.setenv("UPTIER_MODELS_DIR", str(settings.models_dir))
    with_profile = ["--profile", settings.profile]
    assert run(["models", "pull", *with_profile]) == 0
    assert f"toy: already here, 0 MB, {weights}" in shown(capsys)
    assert run(["models", "prepare", *with_profile, "--json"]) == 0
    choice = json.loads(shown(capsys))["toy"]
    assert [c["format"] for c in choice["candidates"]] == ["original", "Q8_0"]
    assert run(["models", "prepare", *with_profile]) == 0
    assert "(remembered: " in shown(capsys)
    assert run(["models", "list", *with_profile, "--json"]) == 0
    row = json.loads(shown(capsys))[0]
    assert (row["name"], row["state"], row["format"]) == ("toy", "ready", choice["format"])
    assert run(["models", "list", *with_profile]) == 0
    assert str(weights_path(settings, "toy")) in shown(capsys)


def test_the_commands_end_with_status_2_and_one_line(
    profile: Any, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    settings = profile()
    monkeypatch.setenv("UPTIER_MODELS_DIR", str(settings.models_dir))
    assert run(["models", "prepare", "--profile", settings.profile]) == 2
    assert f"uptier models pull --profile {settings.profile}" in capsys.readouterr().err
    assert run(["models", "pull", "nowhere", "--profile", settings.profile]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("uptier: model 'nowhere'")
    assert run(["models", "list", "--profile", settings.profile]) == 0
    assert "missing" in capsys.readouterr().out


def shown(capsys: Captured) -> str:
    return str(capsys.readouterr().out)
