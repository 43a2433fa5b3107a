"""No key and no password in anything that a session writes, with all logs at their wordiest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli.session import session
from config.settings import load_settings
from ledger.reports import report
from ledger.trail import trail
from routing.decision import ChoiceOutput, Decision
from tests.integration.test_decisions import PROFILE, uptier
from tests.standin import MessagesStandin, Reply, fault

KEY = "team-key-93b1f0c2d4e5"
AB = ChoiceOutput(labels=("A", "B"))


@dataclass(frozen=True)
class Scene:
    """What a session with a refusing provider left behind."""

    data: Path
    told: str
    password: str
    holders: dict[Path, int]
    """Files that held the password while the stack was up, with their modes."""


def echo(standin_requests: list[Reply], number: int, status: int) -> Reply:
    """An error that quotes the header in which the key came."""
    sent = standin_requests[number]["headers"]
    quoted = sent.get("authorization") or sent["x-api-key"]
    assert KEY in quoted
    return fault(status, "invalid_request_error", f"cannot take {quoted} ({KEY})")


def holding(data: Path, secret: str) -> dict[Path, int]:
    """The files under ``data`` that hold the secret, with their modes."""
    files = [path for path in data.rglob("*") if path.is_file()]
    return {p: p.stat().st_mode & 0o777 for p in files if secret.encode() in p.read_bytes()}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    data, keys = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    keys.chmod(0o600)
    statuses = [400, 500, 413]
    standin = MessagesStandin(lambda n, b: echo(standin.requests, n, statuses[n % 3]))
    with pytest.MonkeyPatch.context() as patch, standin:
        patch.delenv("ANTHROPIC_API_KEY", raising=False)
        patch.setenv("ANTHROPIC_BASE_URL", standin.url)
        settings = load_settings(
            profile=str(PROFILE), data_dir=data, keys_file=keys, log_level="DEBUG"
        )
        with session(settings, mode="test") as live:
            questions = [
                Decision(kind="conflict", prompt=f"conflict {n}", output=AB, key=f"k{n}",
                         fallback="A")
                for n in range(3)
            ]  # fmt: skip
            settled = live.client.gather(questions, timeout_s=60)
            state = json.loads((settings.stack_dir / "stack.json").read_text())
            password = urlsplit(state["broker_url"]).password
            assert password
            told = [s.model_dump_json() for s in settled]
            told += [trail(live.engine, s.id).model_dump_json() for s in settled]
            told.append(report(live.engine, settings, settings.catalog, live.run).model_dump_json())
            told.append(uptier("status", "--json", data=data, UPTIER_PROFILE=str(PROFILE)).stdout)
            holders = holding(data, password)
        assert len(standin.requests) >= 3
    return Scene(data, "\n".join(told), password, holders)


def test_what_the_provider_echoed_is_on_record_without_the_key(scene: Scene) -> None:
    assert "cannot take" in scene.told
    assert "***" in scene.told
    assert KEY not in scene.told
    assert scene.password not in scene.told


def test_no_file_of_the_session_holds_the_key(scene: Scene) -> None:
    names = {path.suffix for path in scene.data.rglob("*") if path.is_file()}
    assert {".db", ".log"} <= names
    assert holding(scene.data, KEY) == {}


def test_the_brokers_password_stands_in_two_files_that_only_the_owner_reads(scene: Scene) -> None:
    assert {path.name for path in scene.holders} == {"stack.json", "valkey.conf"}
    assert set(scene.holders.values()) == {0o600}
    left = holding(scene.data, scene.password)
    assert {path.name for path in left} <= {"valkey.conf"}
