"""A ledger that somebody else has locked, and a disk without space."""

from __future__ import annotations

import contextlib
import errno
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.faults.scene import Form, Place, scene
from tests.faults.stage import Stage

BALLAST_BLOCK = 1 << 16
HOLD_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@scene(
    14, "the ledger locked by another process",
    long=Form(values=(10.0, 20.0) * 5), short=Form(values=(6.0,)), bound_s=15.0,
)  # fmt: skip
def locked(stage: Stage) -> None:
    """Recovery: from the end of the lock until all that was open at its begin is settled, and a
    decision asked just after it."""
    ledger = stage.ground.settings.data_dir / "ledger.db"
    with stage.load():
        for seconds in stage.rounds():
            before = stage.open()
            command = [sys.executable, "-c", HOLD_LOCK, str(ledger), str(seconds)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
                assert holder.stdout is not None
                if holder.stdout.readline().strip() != "locked":
                    stage.complain("the ledger could not be locked")
                holder.wait()
            since = time.monotonic()
            stage.recover([*before, *stage.submit([stage.questions.one()])], since)


@scene(
    16, "no space on the disk", long=Form(values=(5.0, 15.0) * 3), short=Form(values=(5.0,)),
    bound_s=30.0, place=Place.SMALL_DISK, short_place=Place.SHARED,
)  # fmt: skip
def disk_full(stage: Stage) -> None:
    """Recovery: from the return of space until all that was open is settled, and a decision asked
    just after it. Without a disk of its own the workers are forbidden to write."""
    with stage.load():
        for seconds in stage.rounds():
            before = stage.open()
            full = _full_disk if stage.ground.is_small_disk else _forbidden_to_write
            with full(stage):
                stage.tell(f"{full.__name__.strip('_').replace('_', ' ')} for {seconds:.0f} s")
                time.sleep(seconds)
            since = time.monotonic()
            stage.recover([*before, *stage.submit([stage.questions.one()])], since)


@contextmanager
def _full_disk(stage: Stage) -> Iterator[None]:
    ballast = stage.ground.settings.data_dir / "ballast"
    try:
        _fill(ballast)
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (BALLAST_BLOCK, 4096):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


@contextmanager
def _forbidden_to_write(stage: Stage) -> Iterator[None]:
    limited: list[tuple[psutil.Process, tuple[int, int]]] = []
    try:
        for victim in stage.ground.victims():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(victim.pid)
                before = process.rlimit(resource.RLIMIT_FSIZE)
                process.rlimit(resource.RLIMIT_FSIZE, (1, before[1]))
                limited.append((process, before))
        yield
    finally:
        for process, before in limited:
            with contextlib.suppress(psutil.Error):
                process.rlimit(resource.RLIMIT_FSIZE, before)
