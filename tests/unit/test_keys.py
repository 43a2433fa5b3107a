"""Keys of providers: where they are looked for, and which files are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.errors import ConfigurationError
from config.keys import find_key
from config.settings import load_settings
from workers.launch import process_environment

NAME = "ANTHROPIC_API_KEY"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# of the team\n\n {NAME} = sk-from-file=1 \nOPENAI_API_KEY=\n")
    path.chmod(0o600)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as error:
        find_key(NAME, path, {})
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    assert "sk-" not in message
    return message


def test_the_environment_comes_first_and_then_the_file(keys: Path) -> None:
    assert find_key(NAME, keys, {NAME: "sk-from-environment"}) == "sk-from-environment"
    assert find_key(NAME, keys, {}) == "sk-from-file=1"
    assert find_key(NAME, keys, {NAME: " "}) == "sk-from-file=1"
    assert find_key(NAME, None, {}) is None
    for absent in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        assert find_key(absent, keys, {}) is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_use_is_refused(keys: Path, mode: int) -> None:
    keys.chmod(mode)
    assert f"chmod 600 {keys}" in refusal(keys)


def test_a_stricter_mode_is_fine(keys: Path) -> None:
    keys.chmod(0o400)
    assert find_key(NAME, keys, {}) == "sk-from-file=1"


def test_what_is_no_file_of_keys_is_refused_without_waiting(tmp_path: Path, keys: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert "regular file" in refusal(pipe)
    assert "regular file" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "nowhere")
    keys.write_bytes(b"\xff\xfe\x00sk-")
    assert "UTF-8" in refusal(keys)
    keys.write_text("A=b\n" * 50_000)
    assert "bytes" in refusal(keys)


def test_a_file_of_another_user_is_refused(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = keys.stat().st_uid
    if owner == 0:
        if os.geteuid() == 0:
            os.chown(keys, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert "belongs to user" in refusal(keys)


def test_a_link_is_judged_by_the_file_it_leads_to(tmp_path: Path, keys: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(keys)
    assert find_key(NAME, link, {}) == "sk-from-file=1"
    keys.chmod(0o644)
    assert "chmod 600" in refusal(link)


@pytest.mark.parametrize("line", ["sk-alone", "=sk-nameless", "MY KEY=sk-1", "export A=sk-1"])
def test_a_malformed_line_is_named_by_its_number_alone(keys: Path, line: str) -> None:
    keys.write_text(f"A=b\n{line}\n")
    assert "line 2" in refusal(keys)


def test_a_key_in_the_file_makes_its_lane_present_and_stays_out_of_the_environment(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NAME, raising=False)
    assert "tier3" not in load_settings(profile="laptop").catalog.lanes
    settings = load_settings(profile="laptop", keys_file=keys)
    assert "tier3" in settings.catalog.lanes
    assert settings.absent_lanes == ()
    children = process_environment(settings)
    assert children["UPTIER_KEYS_FILE"] == str(keys)
    assert not any("sk-from-file" in value for value in children.values())
