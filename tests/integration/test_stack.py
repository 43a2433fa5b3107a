"""A stack comes up, is shared, refuses what does not fit, and goes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import redis

from config.errors import BrokerUnavailable, ConfigurationError, StackError
from config.settings import Settings
from tests.integration.stacks import (
    HOOKS,
    PROFILE,
    PROGRAM,
    WORKERS,
    assert_nothing_is_left,
    made_settings,
    owning,
    process_ids,
    runs,
    state_of,
)
from workers.stack import running_stack
from workers.stack_control import Down, start_detached, stop_detached
from workers.stack_state import Phase

pytestmark = pytest.mark.timeout(60)


def test_a_stack_serves_inside_the_block_and_leaves_nothing_behind(settings: Settings) -> None:
    with running_stack(settings, hooks=HOOKS) as endpoint:
        state = state_of(settings)
        assert endpoint.owned
        assert endpoint.failure() is None
        assert redis.Redis.from_url(endpoint.broker_url).ping()
        assert state.phase is Phase.READY
        assert {worker.name for worker in state.workers} == WORKERS
        ids = process_ids(state)
        assert all(runs(pid) for pid in ids)
    assert_nothing_is_left(settings, ids)


def test_the_password_is_in_no_command_line_and_in_no_readable_file(settings: Settings) -> None:
    with running_stack(settings, hooks=HOOKS) as endpoint:
        state = state_of(settings)
        password = endpoint.broker_url.split(":")[2].split("@")[0]
        for pid in process_ids(state):
            assert password not in " ".join(psutil.Process(pid).cmdline())
        holders = [
            path
            for path in settings.stack_dir.rglob("*")
            if path.is_file() and password.encode() in path.read_bytes()
        ]
        assert {path.name for path in holders} == {"stack.json", "valkey.conf"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in holders)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(endpoint.broker_url.replace(password, "")).ping()


def test_messages_outlive_the_stack(settings: Settings) -> None:
    with running_stack(settings, hooks=HOOKS) as endpoint:
        redis.Redis.from_url(endpoint.broker_url).rpush("uptier:one", "a", "b")
    with running_stack(settings, hooks=HOOKS) as endpoint:
        assert redis.Redis.from_url(endpoint.broker_url).llen("uptier:one") == 2


def test_a_taken_port_is_one_line_that_names_it(tmp_path: Path) -> None:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        port = taker.getsockname()[1]
        settings = made_settings(tmp_path / "data", broker_port=port)
        with (
            pytest.raises(BrokerUnavailable) as caught,
            running_stack(settings, hooks=HOOKS),
        ):
            pass
    assert f"port {port} " in str(caught.value)
    assert "UPTIER_BROKER_PORT" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert_nothing_is_left(settings, [])


def test_a_second_process_attaches_and_leaves_the_stack_up(
    settings: Settings, owner: subprocess.Popen[str]
) -> None:
    with running_stack(settings, hooks=HOOKS) as endpoint:
        assert not endpoint.owned
        assert redis.Redis.from_url(endpoint.broker_url).ping()
        assert endpoint.failure() is None
    assert all(runs(pid) for pid in process_ids(state_of(settings)))


def test_an_attached_process_hears_that_the_owner_is_gone(
    settings: Settings, owner: subprocess.Popen[str]
) -> None:
    with running_stack(settings, hooks=HOOKS) as endpoint:
        owner.send_signal(signal.SIGTERM)
        owner.wait(60)
        assert "has ended" in (endpoint.failure() or "")


def test_three_starts_at_once_make_one_stack(settings: Settings) -> None:
    with ExitStack() as starts:
        owners = [starts.enter_context(owning(settings, waits=False)) for _ in range(3)]
        for process in owners:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
        state = state_of(settings)
        holders = [process for process in owners if process.pid == state.owner.pid]
        assert len(holders) == 1
        for process in sorted(owners, key=lambda process: process in holders):
            process.send_signal(signal.SIGINT)
            process.wait(60)
        assert_nothing_is_left(settings, process_ids(state))


def test_another_profile_on_the_same_directory_is_refused(
    settings: Settings, owner: subprocess.Popen[str], tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(PROFILE)
    asked = settings.model_copy(update={"profile": str(other)})
    with pytest.raises(ConfigurationError) as caught, running_stack(asked, hooks=HOOKS):
        pass
    assert str(other) in str(caught.value)
    assert settings.profile in str(caught.value)
    assert "uptier down" in str(caught.value)


def test_an_unwritable_data_directory_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "standin.toml").write_text(PROFILE)
    settings = made_settings(tmp_path / "data").model_copy(
        update={"data_dir": tmp_path / "file" / "data"}
    )
    with pytest.raises(ConfigurationError) as caught, running_stack(settings, hooks=HOOKS):
        pass
    assert str(settings.data_dir) in str(caught.value)
    assert "UPTIER_DATA_DIR" in str(caught.value)


def test_a_placement_that_does_not_fit_is_refused_before_anything_starts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConfigurationError("GPU 0 has 12 MB")

    monkeypatch.setattr("workers.stack_owner.place", refuse)
    with pytest.raises(ConfigurationError, match="GPU 0"), running_stack(settings, hooks=HOOKS):
        pass
    assert_nothing_is_left(settings, [])
    assert not (settings.stack_dir / "valkey").exists()


def test_up_leaves_a_stack_running_and_down_ends_it(settings: Settings) -> None:
    command = [*PROGRAM, "stay", str(settings.data_dir)]
    lines: list[str] = []
    state, ran_before = start_detached(settings, lines.append, command)
    assert not ran_before
    assert all(runs(pid) for pid in process_ids(state))
    again, ran_before = start_detached(settings, lines.append, command)
    assert ran_before
    assert again.owner == state.owner
    assert stop_detached(settings, lines.append) is Down.STOPPED
    assert_nothing_is_left(settings, [state.owner.pid, *process_ids(state)])
    assert stop_detached(settings, lines.append) is Down.NOTHING


def test_a_start_in_the_background_that_fails_says_why(settings: Settings) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('uptier: it is too dark here')"]
    with pytest.raises(StackError, match=r"exit code 1.*: it is too dark here"):
        start_detached(settings, lambda line: None, command)
