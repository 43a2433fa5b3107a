"""Wrong input: one line that names the value and the mend, exit 2, and nothing half-written."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest

from tests.integration.test_decisions import PROFILE, uptier

PROMPT = ("--prompt", "What next?")


def refused(*arguments: str, data: Path, says: tuple[str, ...], **env: str) -> None:
    """The command exits with 2 and its last line, the only one of an error, says all of these."""
    done = uptier(*arguments, data=data, **env)
    lines = [line for line in done.stderr.splitlines() if line.startswith("uptier: ")]
    assert done.returncode == 2, done.stderr + done.stdout
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in says:
        assert word in lines[0], lines[0]
    assert not (data / "stack" / "stack.json").exists()


def test_an_unknown_profile(tmp_path: Path) -> None:
    refused("simulate", "--profile", "desktop", data=tmp_path, says=("'desktop'", "laptop"))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_setting_value(tmp_path: Path) -> None:
    refused("status", data=tmp_path, says=("lease_s", "-1"), UPTIER_LEASE_S="-1")


def test_a_kind_without_output(tmp_path: Path) -> None:
    refused(
        "decide",
        "--kind",
        "riddle",
        *PROMPT,
        "--profile",
        str(PROFILE),
        data=tmp_path,
        says=("'riddle'", "choices"),
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("choices", ["", "A", "A,,B", "A,A"])
def test_empty_single_or_equal_choices(tmp_path: Path, choices: str) -> None:
    refused(
        "decide",
        *PROMPT,
        "--choices",
        choices,
        "--profile",
        str(PROFILE),
        data=tmp_path,
        says=("label",),
    )


def test_an_empty_prompt(tmp_path: Path) -> None:
    refused(
        "decide",
        "--prompt",
        "",
        "--choices",
        "A,B",
        "--profile",
        str(PROFILE),
        data=tmp_path,
        says=("prompt", "at least 1"),
    )


def test_an_unknown_tier(tmp_path: Path) -> None:
    refused(
        "decide",
        *PROMPT,
        "--choices",
        "A,B",
        "--force-tier",
        "mainframe",
        "--profile",
        str(PROFILE),
        data=tmp_path,
        says=("'mainframe'", "local_fast"),
    )


@pytest.mark.usefixtures("smollm2")
def test_a_prompt_longer_than_the_context(tmp_path: Path) -> None:
    refused(
        "decide",
        "--prompt",
        "word " * 3000,
        "--choices",
        "A,B",
        "--profile",
        "tiny",
        data=tmp_path,
        says=("tokens", "2048", "shorten"),
    )


def test_broken_toml_in_a_profile(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text("[tiers.local_fast]\nrank = = 1\n")
    refused(
        "simulate", "--profile", str(profile), data=tmp_path / "data", says=("mine.toml", "line 2")
    )


def test_broken_toml_in_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "uptier.toml"
    config.write_text("profile = tiny\n")
    refused(
        "status", data=tmp_path / "data", says=("uptier.toml", "line 1"), UPTIER_CONFIG=str(config)
    )


def test_missing_weights(tmp_path: Path) -> None:
    refused(
        "simulate",
        "--profile",
        "tiny",
        data=tmp_path / "data",
        says=("smollm2-135m", "missing", "uptier models pull"),
        UPTIER_MODELS_DIR=str(tmp_path / "models"),
    )


def test_weights_with_a_wrong_hash(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    weights = models / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with weights.open("wb") as file:
        file.truncate(98_362_432)
    refused(
        "simulate",
        "--profile",
        "tiny",
        data=tmp_path / "data",
        says=("SmolLM2-135M-Instruct.Q4_1.gguf", "pull"),
        UPTIER_MODELS_DIR=str(models),
    )


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        refused(
            "decide",
            *PROMPT,
            "--choices",
            "A,B",
            "--profile",
            str(PROFILE),
            data=tmp_path,
            says=(port, "UPTIER_BROKER_PORT"),
            UPTIER_BROKER_PORT=port,
        )


def test_an_unwritable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = tmp_path / "file" / "data"
    refused(
        "decide",
        *PROMPT,
        "--choices",
        "A,B",
        "--profile",
        str(PROFILE),
        data=data,
        says=(str(tmp_path / "file"), "UPTIER_DATA_DIR"),
    )


def test_a_broker_that_is_gone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"redis://127.0.0.1:{port}/0"
    refused(
        "decide",
        *PROMPT,
        "--choices",
        "A,B",
        "--profile",
        str(PROFILE),
        data=tmp_path,
        says=(str(port), "does not answer", "UPTIER_BROKER_URL"),
        UPTIER_BROKER_URL=url,
    )


def test_a_ledger_of_a_newer_version(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("create table alembic_version (version_num varchar(32) primary key)")
        connection.execute("insert into alembic_version values ('9999')")
    refused(
        "decide",
        *PROMPT,
        "--choices",
        "A,B",
        "--profile",
        str(PROFILE),
        data=tmp_path,
        says=("'9999'", "newer", "update"),
    )


def test_resuming_without_an_unfinished_simulation(tmp_path: Path) -> None:
    refused(
        "simulate",
        "--profile",
        "tiny",
        "--resume",
        data=tmp_path,
        says=("no unfinished simulation", "without --resume"),
    )
