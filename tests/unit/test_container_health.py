"""`uptier health` and `uptier migrate`, as containers run them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from cli.main import run
from config.settings import Settings, load_settings
from ledger.clock import now
from ledger.database import migrate, newest_version, open_ledger, writing
from ledger.workers import ALIVE_US, WORKERS, Life, announce

PROFILE = Path(__file__).parents[1] / "profiles_scripted.toml"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UPTIER_PROFILE", str(PROFILE))
    return load_settings()


def say(settings: Settings, state: str, lane: str = "tier1") -> None:
    engine = open_ledger(settings)
    announce(engine, Life("token", "worker", lane), state)
    engine.dispose()


def change(settings: Settings, **values: object) -> None:
    engine = open_ledger(settings)
    with writing(engine) as connection:
        connection.execute(update(WORKERS).values(**values))
    engine.dispose()


def test_migrate_makes_the_tables_and_says_their_version(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert run(["migrate"]) == 0
        assert capsys.readouterr().out.endswith(f"is of version {newest_version()}\n")


def test_only_a_ready_worker_of_the_lane_is_health(settings: Settings) -> None:
    migrate(settings)
    assert run(["health", "tier1"]) == 1
    say(settings, "ready")
    assert run(["health", "tier1"]) == 0
    assert run(["health", "tier2"]) == 1
    say(settings, "stopping")
    assert run(["health", "tier1"]) == 1


def test_a_worker_that_was_not_heard_of_or_of_another_machine_is_none(settings: Settings) -> None:
    migrate(settings)
    say(settings, "ready")
    change(settings, heartbeat_at=now() - 2 * ALIVE_US)
    assert run(["health", "tier1"]) == 1
    assert run(["health", "--live", "tier1"]) == 1  # it hangs, and the ledger knows
    change(settings, heartbeat_at=now(), host="another")
    assert run(["health", "tier1"]) == 1


def test_a_ledger_that_cannot_be_asked_is_no_fault_of_a_live_worker(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPTIER_DATABASE_URL", "postgresql://uptier@127.0.0.1:1/uptier")
    assert run(["health", "tier1"]) == 1
    assert run(["health", "--live", "tier1"]) == 0
    said = capsys.readouterr().err
    assert "cannot be used" in said
    assert "psycopg." not in said  # no name of a driver's class


def test_a_worker_that_waits_for_its_broker_is_live_and_one_that_hangs_is_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While Celery connects again, its timer stands still, and with it the signs of life."""
    migrate(settings)
    say(settings, "ready")
    change(settings, heartbeat_at=now() - 2 * ALIVE_US)
    monkeypatch.setenv("UPTIER_BROKER_URL", "redis://:secret-word@127.0.0.1:1/0")
    assert run(["health", "tier1"]) == 1
    assert run(["health", "--live", "tier1"]) == 0
    said = capsys.readouterr().err
    assert "does not answer" in said
    assert "secret-word" not in said
    monkeypatch.setenv("UPTIER_BROKER_URL", "memory://")
    assert run(["health", "--live", "tier1"]) == 1
