"""When a worker that died or is ill is started again, and what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import ConfigurationError, StackError
from config.settings import Settings
from workers.children import Child, ProcessRecord, last_line
from workers.fleet import Fleet
from workers.launch import WorkerSpec, worker_environment
from workers.placement import Placement
from workers.restarts import Restarts
from workers.stack_state import WorkerState


class StandIn(Child):
    """A worker that dies when the test says so."""

    def __init__(self, pid: int) -> None:
        self.record = ProcessRecord(pid=pid, created=0, command=("worker",))
        self.said = Path("worker.log")
        self.code: int | None = None
        self.killed = False

    def exit_code(self) -> int | None:
        return self.code

    def last_line(self) -> str:
        return "out of luck"

    def kill(self) -> None:
        self.killed = True


class Scene:
    """A fleet of one worker with a clock in the test's hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.children: list[StandIn] = []
        self.tokens: list[str] = []
        self.ready: set[str] = set()
        spec = WorkerSpec("one-1", "one", Placement())
        self.away = False
        self.fleet = Fleet(
            [spec], self.spawn, lambda: self.ready, start_timeout_s=100, clock=lambda: self.now,
            cut_off=lambda: self.away,
        )  # fmt: skip

    def spawn(self, spec: WorkerSpec, token: str) -> StandIn:
        self.tokens.append(token)
        self.children.append(StandIn(len(self.children)))
        return self.children[-1]

    def look(self, now: float) -> WorkerState:
        self.now = now
        self.fleet.watch()
        return self.fleet.records()[0].state

    def serve(self) -> None:
        self.ready.add(self.tokens[-1])

    def die(self, code: int = 1) -> None:
        self.children[-1].code = code


def started() -> Scene:
    scene = Scene()
    scene.fleet.start()
    scene.serve()
    scene.fleet.wait_ready(lambda: None, lambda line: None)
    return scene


def test_a_process_is_started_again_after_1_2_and_4_seconds_and_then_given_up() -> None:
    restarts = Restarts()
    delays = []
    for _ in range(3):
        delays.append(restarts.delay())
        restarts.restarted()
    assert delays == [1, 2, 4]
    assert restarts.delay() is None
    assert restarts.count == 3


def test_a_process_that_has_proven_itself_has_all_its_restarts_again() -> None:
    restarts = Restarts()
    for _ in range(3):
        restarts.restarted()
    restarts.proven()
    assert restarts.delay() == 1
    assert restarts.count == 3


def test_a_dead_worker_is_started_again_after_its_wait_with_a_new_token() -> None:
    scene = started()
    scene.die(-9)
    assert scene.look(10) is WorkerState.WAITING
    assert scene.look(10.5) is WorkerState.WAITING
    assert scene.look(11) is WorkerState.STARTING
    scene.serve()
    assert scene.look(11.5) is WorkerState.READY
    record = scene.fleet.records()[0]
    assert record.restarts == 1
    assert record.message == "worker one-1 was ended by SIGKILL: out of luck"
    assert len(set(scene.tokens)) == 2


def test_a_worker_that_dies_again_and_again_is_given_up_and_named() -> None:
    scene = started()
    now = 0.0
    while scene.fleet.failure() is None:
        assert now < 120
        scene.die()
        now += 0.5
        scene.look(now)
    assert len(scene.children) == 4
    assert "one-1" in (scene.fleet.failure() or "")
    assert "out of luck" in (scene.fleet.failure() or "")
    assert scene.look(now + 1000) is WorkerState.FAILED


def test_a_wrong_configuration_is_not_tried_again() -> None:
    scene = started()
    scene.die(2)
    assert scene.look(1) is WorkerState.FAILED
    assert scene.look(100) is WorkerState.FAILED
    assert len(scene.children) == 1


def test_a_worker_that_never_gets_ready_is_ended_and_tried_again() -> None:
    scene = started()
    scene.die()
    scene.look(1)
    assert scene.look(2) is WorkerState.STARTING
    assert scene.look(101) is WorkerState.STARTING
    assert scene.look(103) is WorkerState.WAITING
    assert scene.children[-1].killed


def test_a_worker_that_starts_while_the_broker_is_away_waits_for_it() -> None:
    scene = started()
    scene.die()
    scene.look(1)
    assert scene.look(2) is WorkerState.STARTING
    scene.away = True
    for now in range(3, 3000, 50):
        assert scene.look(now) is WorkerState.STARTING
    scene.away = False
    assert scene.look(3000) is WorkerState.STARTING
    scene.serve()
    assert scene.look(3001) is WorkerState.READY
    assert not scene.children[-1].killed


def test_nothing_is_started_once_the_fleet_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.fleet.end_children", lambda children: None)
    scene = started()
    scene.die()
    scene.look(1)
    scene.fleet.stop()
    scene.look(10)
    assert len(scene.children) == 1


def test_a_death_while_starting_is_an_error_with_name_code_and_last_line() -> None:
    scene = Scene()
    scene.fleet.start()
    scene.die(3)
    with pytest.raises(StackError, match="worker one-1 ended with exit code 3: out of luck"):
        scene.fleet.wait_ready(lambda: None, lambda line: None)


def test_a_wrong_configuration_while_starting_speaks_for_itself() -> None:
    scene = Scene()
    scene.fleet.start()
    scene.die(2)
    with pytest.raises(ConfigurationError, match="^out of luck$"):
        scene.fleet.wait_ready(lambda: None, lambda line: None)


def test_a_start_that_takes_too_long_names_who_is_late() -> None:
    scene = Scene()
    scene.fleet.start()

    def pass_time() -> None:
        scene.now += 60

    with pytest.raises(StackError, match="one-1 did not become ready within 100 s"):
        scene.fleet.wait_ready(pass_time, lambda line: None)


def test_a_worker_gets_the_settings_in_force_and_its_name(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, models_dir=tmp_path / "m", lease_s=7, profile="p.toml")
    spec = WorkerSpec("a-1", "a", Placement(threads=2))
    env = worker_environment(spec, "token", settings, "redis://:secret@127.0.0.1:1/0")
    assert env["UPTIER_LEASE_S"] == "7.0"
    assert env["UPTIER_PROFILE"] == str(Path("p.toml").absolute())
    assert env["UPTIER_DATA_DIR"] == str(tmp_path)
    assert env["UPTIER_MODELS_DIR"] == str(tmp_path / "m")
    assert env["UPTIER_BROKER_URL"] == "redis://:secret@127.0.0.1:1/0"
    assert (env["UPTIER_WORKER_NAME"], env["UPTIER_WORKER_TOKEN"]) == ("a-1", "token")
    assert env["UPTIER_PARENT_PIPE"] == "1"
    assert env["PYTHONSAFEPATH"] == "1"


def test_the_last_line_of_a_log_is_the_one_that_says_something(tmp_path: Path) -> None:
    said = tmp_path / "log"
    said.write_text(
        "started\n\x1b[31mTraceback (most recent call last):\x1b[0m\n  File 'x'\n"
        "ValueError: \x1b[1mno\x1b[0m\n    ^^^\n\n"
    )
    assert last_line(said) == "ValueError: no"
    assert last_line(said, offset=said.stat().st_size) == ""
    assert last_line(tmp_path / "missing") == ""
