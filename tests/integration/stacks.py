"""A stack with a real Valkey and stand-ins for the Celery workers, for the tests of its life.

Run as a program, this file is the stand-in worker and the process that owns a stack.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from config.settings import Settings
from ledger.lanes import Standing
from ledger.workers import Sign
from workers.children import exit_with_parent
from workers.fleet_ledger import FleetLedger
from workers.stack import Hooks, running_stack
from workers.stack_control import stay_up, stop_detached
from workers.stack_state import StackState, WorkerState

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, __file__]
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


class QuietLedger(FleetLedger):
    """A ledger for supervisors of stand-ins, which have none: it keeps what it is told."""

    def __init__(self, settings: Settings) -> None:
        self.supervisor = "test"

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def take_out(self, lane: str, standing: Standing, reason: str) -> None: ...

    def put_back(self, names: Collection[str]) -> None: ...

    def serves_elsewhere(self, lane: str, tokens: Collection[str]) -> bool:
        return False

    def open_work(self, lane: str) -> int:
        return 0

    def waiting(self) -> dict[str, int]:
        return {}

    def signs(self, tokens: Collection[str]) -> dict[str, Sign]:
        return {}

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def vacate(self, token: str) -> None: ...


HOOKS = Hooks(
    ledger=QuietLedger,
    migrate=lambda settings: None,
    ready=ready_tokens,
    command=lambda spec: [*PROGRAM, "serve", spec.lane],
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


@contextmanager
def owning(settings: Settings, waits: bool = True) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PROGRAM, "own", str(settings.data_dir)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # Tests that run under `nohup` would hand its deafness for SIGHUP on.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
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
    broker = [] if state.broker is None else [state.broker.pid]
    return [*broker, *(w.process.pid for w in state.workers if w.process is not None)]


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(holds: Callable[[], bool], timeout_s: float = 30) -> None:
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


if __name__ == "__main__":
    action, argument = sys.argv[1:]
    if action == "serve":
        serve(argument)
    elif action == "stay":
        stay_up(made_settings(Path(argument)), print, lambda: None, HOOKS)
    else:
        own(argument)
