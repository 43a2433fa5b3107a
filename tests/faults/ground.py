"""What scenes are played on: a stack with traps in its workers, and a paid provider beside it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from sqlalchemy import Engine

from config.queues import QUALITY
from config.settings import Settings, load_settings
from ledger.database import migrate, open_ledger
from tests.faults.books import keep_trail
from tests.faults.broker import Broker
from tests.faults.faulty_worker import VISIBILITY_S, Traps, worker_command
from tests.faults.provider import Provider
from tests.faults.proxy import Proxy
from tests.faults.scene import Place
from workers.stack import Hooks, running_stack
from workers.stack_state import StackState, WorkerState
from workers.valkey import Valkey, free_port

PROFILE = Path(__file__).with_name("profile.toml")
LEASE_S = 3.0
SMALL_DISK_MIB = 64
EMPTY_WITHIN_S = VISIBILITY_S + 20
"""The broker gives back what a dead worker held after the visibility timeout, and looks every
5 s; a message may go that way twice."""


@dataclass(frozen=True)
class Victim:
    """A process that answers or checks."""

    name: str
    lane: str
    pid: int


class Ground:
    """A running stack; ``own`` is a broker that a scene may kill, ``proxy`` stands before it."""

    def __init__(self, settings: Settings, provider: Provider, url: str) -> None:
        self.settings = settings
        self.provider = provider
        self.engine: Engine = open_ledger(settings)
        self.traps = Traps(settings.data_dir)
        self.broker_url = url
        self.broker = Broker(url, (*settings.catalog.lanes, QUALITY))
        self.own: Valkey | None = None
        self.proxy: Proxy | None = None
        self.is_small_disk = False

    def victims(self, *, lanes: tuple[str, ...] = ()) -> list[Victim]:
        """Every worker process that is up, the quality worker's own child too."""
        state = StackState.read(self.settings.stack_dir)
        found: list[Victim] = []
        for worker in state.workers if state is not None else ():
            if worker.process is None or worker.state is not WorkerState.READY:
                continue
            if lanes and worker.lane not in lanes:
                continue
            found.append(Victim(worker.name, worker.lane, worker.process.pid))
            found += _children(found[-1])
        return [v for v in found if psutil.pid_exists(v.pid)]

    def all_ready(self) -> bool:
        """Whether every worker serves."""
        state = StackState.read(self.settings.stack_dir)
        return state is not None and all(w.state is WorkerState.READY for w in state.workers)

    def failure(self) -> str | None:
        """Which worker or broker was given up."""
        state = StackState.read(self.settings.stack_dir)
        return None if state is None else state.failure

    def close(self) -> None:
        """End the connections; the stack ends by itself."""
        self.broker.close()
        self.engine.dispose()


def _children(worker: Victim) -> list[Victim]:
    if worker.lane != QUALITY:
        return []
    try:
        children = psutil.Process(worker.pid).children()
    except psutil.Error:
        return []
    return [Victim(f"{worker.name}'s child", QUALITY, child.pid) for child in children]


class Grounds:
    """The grounds of a performance, each opened when the first scene needs it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._undo = ExitStack()
        self._open: dict[Place, Ground] = {}
        self._keep: ExitStack = ExitStack()
        self.provider = Provider()

    def __enter__(self) -> Self:
        self._undo.enter_context(self.provider)
        paid = {"ANTHROPIC_API_KEY": "sk-test", "ANTHROPIC_BASE_URL": self.provider.url}
        self._undo.enter_context(_environment(paid))
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def rng(self, number: int) -> random.Random:
        """The chance of one scene."""
        return random.Random(f"{self.seed}.{number}")

    def at(self, place: Place) -> Ground:
        """The ground of that sort."""
        if place not in self._open:
            self._open[place] = self._undo.enter_context(_ground(place, self.provider))
        return self._open[place]

    def leftovers(self) -> Iterator[str]:
        """Whatever a broker still holds once all is settled, in words."""
        for place, ground in self._open.items():
            left = ground.broker.wait_empty(EMPTY_WITHIN_S)
            if left is not None:
                yield f"{place.value}: {left}"


def settings_at(data_dir: Path, **more: object) -> Settings:
    """The settings of all grounds: short leases, so that a round takes seconds."""
    return load_settings(
        profile=str(PROFILE), data_dir=data_dir, lease_s=LEASE_S, stale_after_s=3,
        leader_lease_s=3, max_deliveries=2, **more,
    )  # fmt: skip


@contextmanager
def _ground(place: Place, provider: Provider) -> Iterator[Ground]:
    with ExitStack() as undo:
        data_dir = Path(tempfile.mkdtemp(prefix="uptier-faults-"))
        undo.callback(shutil.rmtree, data_dir, ignore_errors=True)
        small = place is Place.SMALL_DISK and undo.enter_context(_small_disk(data_dir))
        own = proxy = None
        settings = settings_at(data_dir)
        if place is Place.OWN_BROKER:
            own = Valkey(data_dir / "valkey", data_dir / "valkey.log", free_port())
            undo.callback(own.stop)
            own.start()
            proxy = undo.enter_context(Proxy(_port(own.url)))
            url = own.url.replace(f":{_port(own.url)}/", f":{proxy.port}/")
            settings = settings_at(data_dir, broker_url=url)
        migrate(settings)
        end = undo.enter_context(_stack(settings))
        ground = Ground(settings, provider, own.url if own is not None else end)
        undo.callback(ground.close)
        keep_trail(ground.engine)
        ground.own, ground.proxy, ground.is_small_disk = own, proxy, bool(small)
        yield ground


@contextmanager
def _stack(settings: Settings) -> Iterator[str]:
    with running_stack(settings, hooks=Hooks(command=worker_command), own_workers=True) as endpoint:
        yield endpoint.broker_url


@contextmanager
def _small_disk(directory: Path) -> Iterator[bool]:
    """A file system of its own on ``directory``; false where this user may not mount one."""
    size = f"size={SMALL_DISK_MIB}m"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        done = False
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(directory)], capture_output=True, check=False)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/")[0])
