"""A long run with workers that come and go."""

from __future__ import annotations

import itertools
import signal
import statistics
import time
from collections.abc import Iterator

import psutil

from tests.faults.scene import Form, scene
from tests.faults.stage import Stage

SETTLED_AFTER_S = 300.0
"""Until then a process may still fill its caches."""
GROWTH = 0.05
BOUNCED = ("tier1-2", "tier2-1", "tier4-1")
"""The others are never bounced: their memory is what is watched."""
MORE_MEMBERS = 50
"""How many more members the broker's keys may have at the end than early on."""


@scene(
    15, "a long run with a worker bounced every minute",
    long=Form(values=(3600.0,)), short=Form(values=(40.0,)), bound_s=None,
)  # fmt: skip
def soaked(stage: Stage) -> None:
    """Memory of workers that stay and keys in the broker must not grow; no recovery is timed."""
    for seconds in stage.rounds():
        every_s = min(60.0, seconds / 2.5)
        memory = _Memory()
        early: dict[str, int] = {}
        with stage.load():
            begun, bounces = time.monotonic(), _bounces(stage)
            due = begun + every_s
            while (passed := time.monotonic() - begun) < seconds:
                time.sleep(min(5.0, every_s / 4))
                memory.look(stage, passed)
                if not early and passed > min(SETTLED_AFTER_S, seconds / 3):
                    early = stage.ground.broker.sizes()
                if time.monotonic() >= due:
                    due += every_s
                    next(bounces)
        stage.wait(stage.open(), time.monotonic())
        memory.judge(stage)
        _judge_keys(stage, early, stage.ground.broker.sizes())


def _bounces(stage: Stage) -> Iterator[None]:
    """Each step ends one worker, gently and harshly in turns."""
    signals = itertools.cycle((signal.SIGTERM, signal.SIGKILL))
    for name in itertools.cycle(BOUNCED):
        for victim in stage.ground.victims():
            if victim.name == name:
                stage.strike(victim, next(signals))
        yield


class _Memory:
    """Resident memory of each process that is old enough, in bytes."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], list[int]] = {}

    def look(self, stage: Stage, passed_s: float) -> None:
        """Note the memory of every process that has stayed."""
        if passed_s < SETTLED_AFTER_S:
            return
        for victim in stage.ground.victims():
            if victim.name in BOUNCED:
                continue
            try:
                resident = psutil.Process(victim.pid).memory_info().rss
            except psutil.Error:
                continue
            self._seen.setdefault((victim.name, victim.pid), []).append(resident)

    def judge(self, stage: Stage) -> None:
        """Complain of what has grown."""
        for (name, pid), seen in self._seen.items():
            if len(seen) < 20:
                continue
            first, last = statistics.median(seen[:5]), statistics.median(seen[-5:])
            grown = last / first - 1
            stage.tell(f"{name} ({pid}): {first / 1e6:.1f} MB, then {last / 1e6:.1f} MB")
            if grown > GROWTH:
                stage.complain(f"{name} grew by {grown:.1%}: {first / 1e6:.1f} MB after 5 min, "
                               f"{last / 1e6:.1f} MB at the end")  # fmt: skip


def _judge_keys(stage: Stage, early: dict[str, int], late: dict[str, int]) -> None:
    grown = {key: (early.get(key, 0), size) for key, size in late.items()
             if size > early.get(key, 0)}  # fmt: skip
    stage.tell(f"keys in the broker: {len(early)}, then {len(late)}")
    if sum(late.values()) > sum(early.values()) + MORE_MEMBERS:
        stage.complain(f"keys of the broker grew: {grown}")
