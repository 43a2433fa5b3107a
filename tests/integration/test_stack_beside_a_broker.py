"""A stack beside a broker that somebody else runs: workers only, and only where they are wanted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.session import session
from config.errors import BrokerUnavailable, ConfigurationError
from config.settings import Settings, load_settings
from routing.decision import ChoiceOutput, Decision, Status
from tests.integration.stacks import (
    HOOKS,
    PROGRAM,
    WORKERS,
    assert_nothing_is_left,
    made_settings,
    process_ids,
    runs,
    state_of,
    wait_until,
    worker_state,
)
from tests.integration.test_decisions import PROFILE as SCRIPTED
from workers.children import ProcessRecord
from workers.stack import running_stack
from workers.stack_control import Down, start_detached, stop_detached
from workers.stack_state import WorkerState
from workers.stack_status import Condition, stack_status
from workers.valkey import Valkey, free_port

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def broker_url(tmp_path: Path) -> Iterator[str]:
    """A broker that is not the stack's."""
    server = Valkey(tmp_path / "broker", tmp_path / "broker.log")
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def beside(settings: Settings, broker_url: str, tmp_path: Path) -> Settings:
    return made_settings(tmp_path / "data", broker_url=broker_url)


def test_with_a_broker_configured_nothing_is_started(tmp_path: Path) -> None:
    settings = made_settings(tmp_path / "data", broker_url="redis://elsewhere/0")
    with running_stack(settings, hooks=HOOKS) as endpoint:
        assert endpoint.broker_url == "redis://elsewhere/0"
        assert not endpoint.owned
    assert not settings.data_dir.exists()


def test_own_workers_are_started_watched_and_ended_and_the_broker_is_left(
    beside: Settings, broker_url: str
) -> None:
    with running_stack(beside, hooks=HOOKS, own_workers=True) as endpoint:
        assert endpoint.owned
        assert endpoint.broker_url == broker_url
        state = state_of(beside)
        assert state.broker is None
        assert {worker.name for worker in state.workers} == WORKERS
        killed = next(w for w in state.workers if w.name == "two-1").process
        assert killed is not None
        os.kill(killed.pid, signal.SIGKILL)
        wait_until(lambda: worker_state(beside, "two-1") is WorkerState.WAITING)
        wait_until(lambda: worker_state(beside, "two-1") is WorkerState.READY)
        ids = process_ids(state_of(beside))
    assert_nothing_is_left(beside, ids)
    assert not (beside.stack_dir / "valkey").exists()
    assert redis.Redis.from_url(broker_url).ping()


def test_a_command_beside_hears_that_the_workers_of_this_machine_are_given_up(
    beside: Settings,
) -> None:
    with running_stack(beside, hooks=HOOKS, own_workers=True), running_stack(beside) as endpoint:
        assert not endpoint.owned
        assert endpoint.failure() is None
        for lane in ("one", "two"):
            order = beside.data_dir / f"order-{lane}"
            order.write_text("2 uptier: weights are gone: pull them")
        for worker in state_of(beside).workers:
            if worker.lane in ("one", "two"):
                assert worker.process is not None
                os.kill(worker.process.pid, signal.SIGKILL)
        wait_until(lambda: endpoint.failure() is not None)
        assert "weights are gone" in (endpoint.failure() or "")


def test_up_starts_workers_which_status_shows_and_down_ends(
    beside: Settings, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack_status(beside).condition is Condition.EXTERNAL
    state, ran_before = start_detached(
        beside, lambda line: None, [*PROGRAM, "stay", str(beside.data_dir)]
    )
    assert not ran_before
    assert all(runs(pid) for pid in process_ids(state))
    found = stack_status(beside)
    assert (found.condition, found.broker_reachable) == (Condition.UP, True)
    assert {(w.name, w.state) for w in found.workers} == {(name, "ready") for name in WORKERS}
    assert broker_url not in found.model_dump_json()
    assert stop_detached(beside, lambda line: None) is Down.STOPPED
    assert_nothing_is_left(beside, process_ids(state))
    assert redis.Redis.from_url(broker_url).ping()


def test_a_command_without_the_setting_attaches_to_the_broker_of_the_stack(
    beside: Settings, settings: Settings, broker_url: str
) -> None:
    with running_stack(beside, hooks=HOOKS, own_workers=True), running_stack(settings) as endpoint:
        assert (endpoint.owned, endpoint.broker_url) == (False, broker_url)


def test_a_stack_on_another_broker_is_refused_and_its_password_not_told(
    beside: Settings, settings: Settings, broker_url: str
) -> None:
    with (
        running_stack(settings, hooks=HOOKS) as endpoint,
        pytest.raises(ConfigurationError, match="UPTIER_BROKER_URL is") as caught,
        running_stack(beside, hooks=HOOKS, own_workers=True),
    ):
        pass
    assert "uptier down" in str(caught.value)
    for url in (broker_url, endpoint.broker_url):
        assert url.split(":")[2].split("@")[0] not in str(caught.value)


def test_a_broker_that_is_away_ends_the_start_before_any_worker(settings: Settings) -> None:
    away = made_settings(settings.data_dir, broker_url=f"redis://127.0.0.1:{free_port()}/0")
    with (
        pytest.raises(BrokerUnavailable, match="does not answer"),
        running_stack(away, hooks=HOOKS, own_workers=True),
    ):
        pass
    assert_nothing_is_left(away, [])


def test_a_worker_that_starts_while_the_broker_is_away_waits_for_it(tmp_path: Path) -> None:
    broker = Valkey(tmp_path / "broker", tmp_path / "broker.log")
    broker.start()
    settings = load_settings(
        profile=str(SCRIPTED), data_dir=tmp_path / "data", broker_url=broker.url, stale_after_s=2
    )
    try:
        with session(settings, mode="test", own_workers=True) as live:
            broker.stop()
            before = next(w.process for w in state_of(settings).workers if w.name == "tier1-1")
            assert before is not None
            os.kill(before.pid, signal.SIGKILL)
            wait_until(lambda: process_of(settings, "tier1-1") not in (None, before))
            time.sleep(3)  # it has seen by now that nobody answers
            broker.start()
            question = Decision(
                kind="question", key="one", prompt="easy", output=ChoiceOutput(labels=("A", "B"))
            )
            settled = live.client.gather([question], timeout_s=60)[0]
            assert (settled.status, settled.lane) == (Status.ACCEPTED, "tier1")
            assert all(w.state is not WorkerState.FAILED for w in state_of(settings).workers)
    finally:
        broker.stop()


def process_of(settings: Settings, name: str) -> ProcessRecord | None:
    worker = next(w for w in state_of(settings).workers if w.name == name)
    return worker.process if worker.state is WorkerState.STARTING else None
