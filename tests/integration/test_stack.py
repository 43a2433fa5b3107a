"""The embedded stack with a real Valkey and stand-ins for the Celery workers.

Run as a program, this file is the stand-in worker and the process that owns a stack.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from config.errors import BrokerUnavailable, ConfigurationError, StackError
from config.settings import Settings
from workers.children import exit_with_parent
from workers.stack import Hooks, running_stack
from workers.stack_control import Down, start_detached, stay_up, stop_detached
from workers.stack_state import Phase, StackState, WorkerState

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]
PROFILE = """
[tiers.local]
rank = 1
[lanes.one]
tier = "local"
model = "stand-in"
[lanes.two]
tier = "local"
model = "stand-in"
workers = 2
[models.stand-in]
backend = "scripted"
[kinds.ask]
tier = "local"
[routing]
unknown_kind_tier = "local"
critic_tier = "local"
"""
WORKERS = {"one-1", "two-1", "two-2", "quality-1"}


# The stand-in worker and the owner, run as programs of their own.


def serve(lane: str) -> None:
    """A worker that says by a file that it is ready, and misbehaves where a file asks it to."""
    directory = Path(os.environ["UPTIER_DATA_DIR"])
    exit_with_parent()
    order = directory / f"order-{lane}"
    if order.exists():
        if "stubborn" in order.read_text():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            code, words = order.read_text().split(" ", 1)
            print(words, file=sys.stderr)
            sys.exit(int(code))
    ready = directory / "ready"
    ready.mkdir(exist_ok=True)
    (ready / os.environ["UPTIER_WORKER_TOKEN"]).touch()
    while True:
        time.sleep(60)


def ready_tokens(settings: Settings) -> set[str]:
    ready = settings.data_dir / "ready"
    return set(os.listdir(ready)) if ready.exists() else set()


HOOKS = Hooks(
    migrate=lambda settings: None,
    ready=ready_tokens,
    command=lambda spec: [sys.executable, __file__, "serve", spec.lane],
)


def own(data_dir: str) -> None:
    """Hold a stack until a signal comes."""
    settings = made_settings(Path(data_dir))
    with running_stack(settings, hooks=HOOKS):
        print("up", flush=True)
        time.sleep(120)


def made_settings(data_dir: Path, **more: object) -> Settings:
    profile = data_dir.parent / "standin.toml"
    if not profile.exists():
        profile.write_text(PROFILE)
    given = {"profile": str(profile), "data_dir": data_dir, "models_dir": data_dir / "models"}
    return Settings.model_validate(given | {"start_timeout_s": 30} | more)


# What the tests look at.


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("UPTIER_BROKER_URL", "UPTIER_BROKER_PORT", "UPTIER_PROFILE"):
        os.environ.pop(name, None)
    return made_settings(tmp_path / "data")


@pytest.fixture
def owner(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a stack which is up."""
    with owning(settings) as process:
        yield process


@contextmanager
def owning(settings: Settings, waits: bool = True) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, __file__, "own", str(settings.data_dir)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        if waits:
            assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.communicate()
        stop_detached(settings, progress=lambda line: None)


def state_of(settings: Settings) -> StackState:
    state = StackState.read(settings.stack_dir)
    assert state is not None
    return state


def process_ids(state: StackState) -> list[int]:
    assert state.broker is not None
    return [state.broker.pid, *(w.process.pid for w in state.workers if w.process is not None)]


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def assert_nothing_is_left(settings: Settings, ids: list[int]) -> None:
    assert [pid for pid in ids if runs(pid)] == []
    left = sorted(path.name for path in settings.stack_dir.iterdir())
    assert [name for name in left if name not in ("logs", "valkey")] == []
    assert not (settings.stack_dir / "valkey" / "valkey.conf").exists()
    assert not (settings.stack_dir / "valkey" / "valkey.pid").exists()


def mentions(process: psutil.Process, directory: Path) -> bool:
    """Whether a process belongs to the stack of a directory, by its command or environment."""
    try:
        words = [*process.cmdline(), *process.environ().values()]
    except psutil.Error:
        return False
    return process.pid != os.getpid() and any(str(directory) in word for word in words)


def worker_state(settings: Settings, name: str) -> WorkerState:
    return next(w.state for w in state_of(settings).workers if w.name == name)


# The promises.


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
    owner.wait(10)
    assert_nothing_is_left(settings, [owner.pid, *ids])


def test_a_second_ctrl_c_is_safe(settings: Settings, owner: subprocess.Popen[str]) -> None:
    ids = process_ids(state_of(settings))
    owner.send_signal(signal.SIGINT)
    time.sleep(0.2)
    owner.send_signal(signal.SIGINT)
    owner.wait(10)
    assert_nothing_is_left(settings, [owner.pid, *ids])


def test_ctrl_c_ends_workers_that_do_not_listen(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "order-two").write_text("stubborn")
    with owning(settings) as owner:
        ids = process_ids(state_of(settings))
        for _ in range(4):
            owner.send_signal(signal.SIGINT)
            time.sleep(0.2)
        owner.wait(10)
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
        owner.wait(10)
        assert owner.returncode != 0
        assert_nothing_is_left(settings, [owner.pid])
        assert not [p for p in psutil.process_iter() if mentions(p, settings.data_dir)]


def test_after_kill_nine_workers_end_and_the_next_start_cleans(
    settings: Settings, owner: subprocess.Popen[str]
) -> None:
    state = state_of(settings)
    broker, *workers = process_ids(state)
    owner.kill()
    owner.wait(10)
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
        (settings.data_dir / "order-one").write_text("2 uptier: weights are gone: pull them")
        worker = next(w for w in state_of(settings).workers if w.name == "one-1").process
        assert worker is not None
        os.kill(worker.pid, signal.SIGKILL)
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
        owner.wait(10)
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
            process.wait(10)
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


def test_with_a_broker_configured_nothing_is_started(tmp_path: Path) -> None:
    settings = made_settings(tmp_path / "data", broker_url="redis://elsewhere/0")
    with running_stack(settings, hooks=HOOKS) as endpoint:
        assert endpoint.broker_url == "redis://elsewhere/0"
        assert not endpoint.owned
    assert not settings.data_dir.exists()


def test_up_leaves_a_stack_running_and_down_ends_it(settings: Settings) -> None:
    command = [sys.executable, __file__, "stay", str(settings.data_dir)]
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


def test_down_cleans_what_a_crash_left(settings: Settings, owner: subprocess.Popen[str]) -> None:
    ids = process_ids(state_of(settings))
    owner.kill()
    owner.wait(10)
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


def test_a_start_in_the_background_that_fails_says_why(settings: Settings) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('uptier: it is too dark here')"]
    with pytest.raises(StackError, match=r"exit code 1.*: it is too dark here"):
        start_detached(settings, lambda line: None, command)


if __name__ == "__main__":
    action, argument = sys.argv[1:]
    if action == "serve":
        serve(argument)
    elif action == "stay":
        stay_up(made_settings(Path(argument)), print, lambda: None, HOOKS)
    else:
        own(argument)
