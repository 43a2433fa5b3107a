"""Whatever ends a part of a stack: the rest goes on, or nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import redis

from config.errors import ConfigurationError, StackError
from config.settings import Settings
from tests.integration.stacks import (
    HOOKS,
    assert_nothing_is_left,
    mentions,
    owning,
    process_ids,
    runs,
    state_of,
    wait_until,
    worker_state,
)
from workers.stack import running_stack
from workers.stack_control import Down, stop_detached
from workers.stack_state import StackState, WorkerState

pytestmark = pytest.mark.timeout(60)


def test_an_error_in_the_block_stops_the_stack(settings: Settings) -> None:
    ids: list[int] = []

    def fail() -> None:
        ids.extend(process_ids(state_of(settings)))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), running_stack(settings, hooks=HOOKS):
        fail()
    assert ids
    assert_nothing_is_left(settings, ids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_within_ten_seconds(
    settings: Settings, owner: subprocess.Popen[str], number: signal.Signals
) -> None:
    ids = process_ids(state_of(settings))
    owner.send_signal(number)
    owner.wait(60)
    assert_nothing_is_left(settings, [owner.pid, *ids])


def test_a_second_ctrl_c_is_safe(settings: Settings, owner: subprocess.Popen[str]) -> None:
    ids = process_ids(state_of(settings))
    owner.send_signal(signal.SIGINT)
    time.sleep(0.2)
    owner.send_signal(signal.SIGINT)
    owner.wait(60)
    assert_nothing_is_left(settings, [owner.pid, *ids])


def test_ctrl_c_ends_workers_that_do_not_listen(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "order-two").write_text("stubborn")
    with owning(settings) as owner:
        ids = process_ids(state_of(settings))
        for _ in range(4):
            owner.send_signal(signal.SIGINT)
            time.sleep(0.2)
        owner.wait(60)
        assert_nothing_is_left(settings, [owner.pid, *ids])


@pytest.mark.parametrize("moment", ["starting", "broker", "workers"])
def test_ctrl_c_while_starting_leaves_nothing(settings: Settings, moment: str) -> None:
    def is_there() -> bool:
        state = StackState.read(settings.stack_dir)
        if state is None:
            return False
        started = {"starting": True, "broker": state.broker, "workers": state.workers[0].process}
        return bool(started[moment])

    with owning(settings, waits=False) as owner:
        wait_until(is_there)
        owner.send_signal(signal.SIGINT)
        time.sleep(0.2)
        owner.send_signal(signal.SIGINT)
        owner.wait(60)
        assert owner.returncode != 0
        assert_nothing_is_left(settings, [owner.pid])
        assert not [p for p in psutil.process_iter() if mentions(p, settings.data_dir)]


def test_after_kill_nine_workers_end_and_the_next_start_cleans(
    settings: Settings, owner: subprocess.Popen[str]
) -> None:
    state = state_of(settings)
    broker, *workers = process_ids(state)
    owner.kill()
    owner.wait(60)
    wait_until(lambda: not any(runs(pid) for pid in workers))
    assert runs(broker)
    lines: list[str] = []
    with running_stack(settings, hooks=HOOKS, progress=lines.append) as endpoint:
        assert endpoint.owned
        assert not runs(broker)
    assert "cleaned up after a stack that crashed; 1 processes ended" in lines
    assert_nothing_is_left(settings, process_ids(state))


def test_a_process_that_only_has_a_recorded_id_is_left_alone(settings: Settings) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with running_stack(settings, hooks=HOOKS):
            state = state_of(settings)
        taken = state.workers[0].process
        assert taken is not None
        reused = taken.model_copy(update={"pid": stranger.pid, "created": time.time()})
        worker = state.workers[0].model_copy(update={"process": reused})
        state.model_copy(update={"workers": (worker,)}).write(settings.stack_dir)
        with running_stack(settings, hooks=HOOKS):
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_killed_worker_is_started_again(settings: Settings) -> None:
    with running_stack(settings, hooks=HOOKS) as endpoint:
        killed = next(w for w in state_of(settings).workers if w.name == "two-1").process
        assert killed is not None
        os.kill(killed.pid, signal.SIGKILL)
        wait_until(lambda: worker_state(settings, "two-1") is WorkerState.WAITING)
        wait_until(lambda: worker_state(settings, "two-1") is WorkerState.READY)
        again = next(w for w in state_of(settings).workers if w.name == "two-1")
        assert again.restarts == 1
        assert again.message is not None
        assert "SIGKILL" in again.message
        assert endpoint.failure() is None
        ids = process_ids(state_of(settings))
    assert_nothing_is_left(settings, ids)


def test_a_killed_broker_comes_back_on_its_port_with_its_messages(settings: Settings) -> None:
    with running_stack(settings, hooks=HOOKS) as endpoint:
        broker = state_of(settings).broker
        assert broker is not None
        client = redis.Redis.from_url(endpoint.broker_url)
        client.rpush("uptier:one", "a")
        time.sleep(1.5)  # what is younger than a second may be lost: appendfsync everysec
        os.kill(broker.pid, signal.SIGKILL)
        wait_until(lambda: state_of(settings).broker != broker)
        wait_until(lambda: client.llen("uptier:one") == 1)
        assert endpoint.failure() is None
        ids = process_ids(state_of(settings))
    assert_nothing_is_left(settings, ids)


def test_a_worker_that_finds_its_configuration_wrong_is_not_started_again(
    settings: Settings,
) -> None:
    with running_stack(settings, hooks=HOOKS) as endpoint:
        for lane in ("one", "two"):
            order = settings.data_dir / f"order-{lane}"
            order.write_text("2 uptier: weights are gone: pull them")
        one, *two = (w for w in state_of(settings).workers if w.lane in ("one", "two"))
        assert one.process is not None
        os.kill(one.process.pid, signal.SIGKILL)
        wait_until(lambda: worker_state(settings, "one-1") is WorkerState.FAILED)
        assert endpoint.failure() is None  # the other lane goes on
        for worker in two:
            assert worker.process is not None
            os.kill(worker.process.pid, signal.SIGKILL)
        wait_until(lambda: state_of(settings).failure is not None)
        assert "weights are gone: pull them" in (endpoint.failure() or "")
        assert state_of(settings).failure == endpoint.failure()
        with (
            pytest.raises(StackError, match="weights are gone"),
            running_stack(settings, hooks=HOOKS),
        ):
            pass


def test_a_wrong_setting_found_by_a_worker_ends_the_start_in_its_words(
    settings: Settings,
) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "order-two").write_text("2 uptier: weights are missing: pull them")
    with (
        pytest.raises(ConfigurationError, match=r"^weights are missing: pull them$"),
        running_stack(settings, hooks=HOOKS),
    ):
        pass
    assert_nothing_is_left(settings, [])


def test_a_worker_that_dies_ends_the_start_with_its_last_line(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "order-quality").write_text("3 ValueError: no such thing")
    with (
        pytest.raises(
            StackError, match="worker quality-1 ended with exit code 3: ValueError: no such thing"
        ),
        running_stack(settings, hooks=HOOKS),
    ):
        pass
    assert_nothing_is_left(settings, [])


def test_down_cleans_what_a_crash_left(settings: Settings, owner: subprocess.Popen[str]) -> None:
    ids = process_ids(state_of(settings))
    owner.kill()
    owner.wait(60)
    assert stop_detached(settings, lambda line: None) is Down.CLEANED
    assert_nothing_is_left(settings, ids)


def test_down_ends_a_stack_whose_owner_is_suspended(
    settings: Settings, owner: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.stack_control.DOWN_TIMEOUT_S", 1.0)
    ids = process_ids(state_of(settings))
    owner.send_signal(signal.SIGSTOP)
    assert stop_detached(settings, lambda line: None) is Down.STOPPED
    assert_nothing_is_left(settings, ids)
