"""Prompt templates counted, and corrections found, with the real SmolLM2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import run
from producers.prompts import PROMPTS

OF_THE_DAEMON = {
    "daemon_action", "daemon_arguments", "daemon_note", "daemon_work", "classify_memory",
}  # fmt: skip
Captured = pytest.CaptureFixture[str]


def test_every_template_is_counted_in_the_models_own_tokens(
    smollm2: None, capsys: Captured
) -> None:
    assert run(["models", "prompts", "--profile", "tiny", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"] == "smollm2-135m"
    rows = {row["template"]: row for row in shown["templates"]}
    assert set(rows) == {path.stem for path in PROMPTS.glob("*.toml")}
    for row in rows.values():
        # The daemon's states come from directories; without one they are not filled in.
        assert row["states"] > 0 or row["template"] in OF_THE_DAEMON
        assert row["most"] >= row["own"] > 0
        # What agents share is the larger part, or sharing it would not be worth much.
        assert row["shared"] > row["own"]
    assert rows["next_action"]["shared"] > 150
    assert run(["models", "prompts", "--profile", "tiny"]) == 0
    assert "next_action" in capsys.readouterr().out


def test_a_model_without_a_tokenizer_here_is_one_line(smollm2: None, capsys: Captured) -> None:
    assert run(["models", "prompts", "--profile", "tiny", "--model", "claude-haiku"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "choose one of smollm2-135m" in line


def test_inputs_without_content_show_what_the_model_leans_to(
    smollm2: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UPTIER_THREADS", "1")
    asked = ["models", "calibrate", "--profile", "tiny", "--kind", "next_action"]
    assert run([*asked, "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    bias = found["correction"]["bias"]
    assert max(bias, key=bias.get) == "BLOCKED"
    assert (found["method"], found["samples"], found["stored"]) == ("contextual", 0, False)
