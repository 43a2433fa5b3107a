"""Processes that die at the worst point: around a commit, and around a paid reply."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time

from tests.faults.scene import Form, scene
from tests.faults.stage import Stage, lease_bound

SPRUNG_WITHIN_S = 20.0
AROUND_COMMIT = ("recorded", "unacknowledged", "ruled", "recording", "ruling")
"""After the commit of an answer, after its publication, after the commit of a verdict; and, for
good measure, before either commit."""
PAID = ("paid", "paid_once")


@scene(
    9, "a crash between commit and acknowledgement",
    long=Form(rounds=25), short=Form(rounds=3), bound_s=lease_bound(),
)  # fmt: skip
def committed(stage: Stage) -> None:
    """Recovery: from the crash until all that was open is settled."""
    points = itertools.cycle(AROUND_COMMIT)
    with stage.load():
        for _ in stage.rounds():
            since = _sprung(stage, next(points))
            stage.recover(stage.open(), since)


@scene(
    10, "a crash between the provider's reply and the commit",
    long=Form(rounds=20), short=Form(rounds=2), bound_s=lease_bound(),
)  # fmt: skip
def replied(stage: Stage) -> None:
    """Recovery: from the crash until all that was open is settled. Once the reply had come to
    the worker, once the call was billed and the reply under way."""
    points = itertools.cycle(("replied", "billed"))
    for _ in stage.rounds():
        point = next(points)
        died = threading.Event()
        if point == "billed":
            stage.ground.provider.after_next_bill(lambda died=died: _kill_payers(stage, died))  # type: ignore[misc]
        else:
            stage.ground.traps.arm(point)
        ids = stage.submit([q for kind in PAID for q in stage.questions.many(4, kind)])
        if point == "billed":
            if not died.wait(SPRUNG_WITHIN_S):
                stage.complain("no call was billed")
            since = time.monotonic()
        else:
            since = _sprung(stage, point, arm=False)
        stage.recover(ids, since)


def _sprung(stage: Stage, point: str, *, arm: bool = True) -> float:
    """Wait until a process has died at ``point``; the moment of it."""
    traps = stage.ground.traps
    if arm:
        traps.arm(point)
    deadline = time.monotonic() + SPRUNG_WITHIN_S
    while traps.armed(point):
        if time.monotonic() > deadline:
            stage.complain(f"nobody came to the trap {point!r}")
            traps.disarm(point)
            break
        time.sleep(0.02)
    stage.tell(f"a process died at {point!r}")
    return time.monotonic()


def _kill_payers(stage: Stage, died: threading.Event) -> None:
    for victim in stage.ground.victims(lanes=("tier3", "tier4")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
    died.set()
