"""Wrong input: one line that names the value and the mend, exit 2, and nothing half-written."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.integration.test_decisions import PROFILE, uptier
from tests.standin import MessagesStandin, fault, message

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


ASKED = ("decide", *PROMPT, "--choices", "A,B", "--profile", str(PROFILE))


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_the_provider_refuses(tmp_path: Path, status: int) -> None:
    with MessagesStandin(lambda n, b: message("A")) as standin:
        standin.listing = fault(status, "authentication_error", "invalid x-api-key sk-wrong-key")
        refused(
            *ASKED,
            data=tmp_path,
            says=("anthropic refuses the key in ANTHROPIC_API_KEY: correct it",),
            ANTHROPIC_API_KEY="sk-wrong-key",
            ANTHROPIC_BASE_URL=standin.url,
        )
    assert (standin.looks, standin.billed) == (1, 0)


@pytest.mark.parametrize("url", ["api.anthropic.com", "http://127.0.0.1:port"])
def test_a_malformed_base_url(tmp_path: Path, url: str) -> None:
    refused(
        *ASKED,
        data=tmp_path,
        says=("ANTHROPIC_BASE_URL", url, "correct it"),
        ANTHROPIC_API_KEY="sk-test",
        ANTHROPIC_BASE_URL=url,
    )


def test_a_provider_that_is_away_keeps_nobody_from_asking_the_others(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = uptier(
        *ASKED, data=tmp_path, ANTHROPIC_API_KEY="sk-test",
        ANTHROPIC_BASE_URL=f"http://127.0.0.1:{port}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logs = "".join(path.read_text() for path in (tmp_path / "stack").rglob("*.log"))
    assert "anthropic at 127.0.0.1 does not answer as it should" in logs


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("ANTHROPIC_API_KEY=sk-test\n")
    path.chmod(0o600)
    return path


def test_a_keys_file_that_others_may_read(tmp_path: Path, keys: Path) -> None:
    keys.chmod(0o644)
    refused(
        *ASKED,
        data=tmp_path / "data",
        says=("UPTIER_KEYS_FILE", "mode 644", f"chmod 600 {keys}"),
        UPTIER_KEYS_FILE=str(keys),
    )


def test_a_keys_file_that_is_missing_or_none_at_all(tmp_path: Path) -> None:
    for path, word in ((tmp_path / "nowhere", "No such file"), (tmp_path, "regular file")):
        refused(
            *ASKED,
            data=tmp_path / "data",
            says=("UPTIER_KEYS_FILE", str(path), word),
            UPTIER_KEYS_FILE=str(path),
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_keys_file_that_cannot_be_read(tmp_path: Path, keys: Path) -> None:
    keys.chmod(0o000)
    refused(
        *ASKED,
        data=tmp_path / "data",
        says=("UPTIER_KEYS_FILE", "Permission denied", "chmod 600"),
        UPTIER_KEYS_FILE=str(keys),
    )


def test_a_keys_file_with_a_malformed_line(tmp_path: Path, keys: Path) -> None:
    keys.write_text("export ANTHROPIC_API_KEY=sk-test\n")
    refused(
        *ASKED,
        data=tmp_path / "data",
        says=("UPTIER_KEYS_FILE", "line 1", "NAME=value"),
        UPTIER_KEYS_FILE=str(keys),
    )


def test_a_keys_file_without_the_name_leaves_the_lane_absent(tmp_path: Path, keys: Path) -> None:
    keys.write_text("ANTHROPIC_KEY=sk-test\n")
    done = uptier(*ASKED, "--kind", "question", data=tmp_path / "data", UPTIER_KEYS_FILE=str(keys))
    assert done.returncode == 0, done.stderr
    assert "ANTHROPIC_API_KEY is not set" in done.stdout


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('[models.small.weights]\nfile = "../x.gguf"', "plain file name"),
        ('[models.small]\nbackend = "llama"', "llama"),
        ('[lanes.tier1]\ntier = "local_fast"\nmodel = "nobody"', "nobody"),
    ],
)
def test_wrong_names_in_a_profile(tmp_path: Path, section: str, says: str) -> None:
    profile = tmp_path / "mine.toml"
    source = 'source = { kind = "file", path = "/x.gguf" }'
    parts = {
        "[tiers.local_fast]": "rank = 1",
        "[lanes.tier1]": 'tier = "local_fast"\nmodel = "small"',
        "[models.small]": 'backend = "scripted"',
        "[models.small.weights]": f'file = "x.gguf"\n{source}',
        "[kinds.question]": 'tier = "local_fast"',
        "[routing]": 'unknown_kind_tier = "local_fast"\ncritic_tier = "local_fast"',
    }
    heading, _, body = section.partition("\n")
    parts[heading] = f"{body}\n{source}" if "weights" in heading else body
    profile.write_text("\n".join(f"{head}\n{text}\n" for head, text in parts.items()))
    refused(
        "decide",
        *PROMPT,
        "--choices",
        "A,B",
        "--profile",
        str(profile),
        data=tmp_path / "data",
        says=("mine.toml", says),
    )
