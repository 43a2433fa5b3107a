"""Child processes: spawned into their own session, watched by id, ended by id, never by name."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
from pydantic import BaseModel, ConfigDict

log = logging.getLogger(__name__)

WORKER_GRACE_S = 6.0
"""How long a worker may finish its running message after SIGTERM."""
KILLED_WITHIN_S = 1.0
POLL_S = 0.02
# The start of a process is reckoned from the boot time, which moves when the clock is set.
SAME_START_S = 2.0
TAIL_BYTES = 16_384
PARENT_PIPE = "UPTIER_PARENT_PIPE"
"""Set to 1 in a child whose standard input is a pipe that its parent holds open."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FRAME = re.compile(r"^(\s|Traceback \(most recent|\^|During handling|The above exception)")


class ProcessRecord(BaseModel):
    """What identifies a process for as long as the machine is up: id, start and command line."""

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float
    """Seconds since the epoch."""
    command: tuple[str, ...]

    @classmethod
    def of(cls, pid: int, command: Sequence[str] | None = None) -> Self:
        """The record of a running process."""
        process = psutil.Process(pid)
        line = process.cmdline() if command is None else command
        return cls(pid=pid, created=process.create_time(), command=tuple(line))

    def alive(self) -> bool:
        """Whether this very process still runs; its id given to another one does not count."""
        try:
            return self.lingers() and psutil.Process(self.pid).cmdline() == list(self.command)
        except psutil.Error:
            return False

    def lingers(self) -> bool:
        """Whether it is still there at all; one that is exiting has lost its command already."""
        try:
            process = psutil.Process(self.pid)
            same_start = abs(process.create_time() - self.created) < SAME_START_S
            return same_start and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class Child:
    """A process that this one spawned as the leader of its own session."""

    def __init__(self, process: subprocess.Popen[bytes], record: ProcessRecord, said: Path) -> None:
        self.process = process
        self.record = record
        self.said = said
        self._offset = 0

    @classmethod
    def spawn(
        cls, command: Sequence[str], *, said: Path, env: Mapping[str, str], pipe: bool = False
    ) -> Self:
        """Start ``command`` with its output appended to the file ``said``.

        With ``pipe`` its standard input ends when this process does; see
        :func:`exit_with_parent`.
        """
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "ab") as output:
            offset = output.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )
        child = cls(process, _record(process.pid, command), said)
        child._offset = offset
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def exit_code(self) -> int | None:
        """The exit code (negative: the signal that ended it), ``None`` while it runs.

        What an ended process leaves of its session is killed before its id is given back, so
        that the id cannot have passed to somebody else.
        """
        if self.process.returncode is None and _has_ended(self.pid):
            _kill_group(self.pid)
        return self.process.poll()

    def last_line(self) -> str:
        """The last line of its output that says something, without colours and stack frames."""
        return last_line(self.said, self._offset).removeprefix("uptier: ")

    def terminate(self) -> None:
        """Ask it to finish (SIGTERM); one that has ended is left alone."""
        if self.exit_code() is None:
            self.process.terminate()

    def kill(self) -> None:
        """End it with its session now, and collect its exit code."""
        if self.process.returncode is None:
            _kill_group(self.pid)
        try:
            self.process.wait(KILLED_WITHIN_S)
        except subprocess.TimeoutExpired:
            log.warning("process %d does not end: it waits on a device", self.pid)
        if self.process.stdin is not None:
            self.process.stdin.close()


def leave(child: Child) -> None:
    """Let a process run on after this one, and be nobody's child."""
    child.process.returncode = 0  # else Python warns that it was forgotten


def end_children(children: Iterable[Child], grace_s: float = WORKER_GRACE_S) -> None:
    """Ask all to finish, wait up to ``grace_s`` seconds for all together, kill the rest."""
    remaining = list(children)
    for child in remaining:
        child.terminate()
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(c.exit_code() is None for c in remaining):
        time.sleep(POLL_S)
    for child in remaining:
        child.kill()


def end_recorded(records: Iterable[ProcessRecord], grace_s: float) -> list[ProcessRecord]:
    """End processes of a stack that crashed, with what is left of their sessions.

    Only processes whose id, start and command line agree with the record are touched. Returns
    those that were running.
    """
    records = list(records)
    running = [record for record in records if record.alive()]
    for record in running:
        _signal(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(record.alive() for record in running):
        time.sleep(POLL_S)
    for record in running:
        if record.alive():
            _kill_group(record.pid)
    _end_orphans(records)
    deadline = time.monotonic() + KILLED_WITHIN_S
    while time.monotonic() < deadline and any(record.alive() for record in running):
        time.sleep(POLL_S)
    return running


def last_line(path: Path, offset: int = 0) -> str:
    """The last line of a log from ``offset`` bytes on that is neither blank nor a stack frame."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = offset if offset <= size else 0  # it was emptied meanwhile
            file.seek(max(begin, size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [_COLOUR.sub("", line).rstrip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line and not _FRAME.match(line)), "")


def exit_with_parent() -> None:
    """End this process when its parent does; does nothing unless ``UPTIER_PARENT_PIPE`` is 1.

    The parent holds the write end of standard input, and the system closes it however the
    parent ends. Then this process gets SIGTERM, and SIGKILL with its group if it is still there
    after the grace that the parent would have given it.
    """
    if os.environ.pop(PARENT_PIPE, None) != "1":
        return
    pipe = os.dup(0)  # whatever the worker does with its standard input, this one stays open
    threading.Thread(
        target=_end_at_eof, args=(pipe, os.getpid()), name="parent-pipe", daemon=True
    ).start()


def _end_at_eof(descriptor: int, own: int) -> None:
    try:
        while os.read(descriptor, 1024):
            pass
    except OSError:
        log.warning("the pipe to the parent broke")
    os.kill(own, signal.SIGTERM)
    time.sleep(WORKER_GRACE_S)
    if os.getpgrp() == own:
        os.killpg(own, signal.SIGKILL)
    os.kill(own, signal.SIGKILL)


def _record(pid: int, command: Sequence[str]) -> ProcessRecord:
    try:
        return ProcessRecord.of(pid, command)
    except psutil.Error:  # ended already and reaped: nothing that could be mistaken for it
        return ProcessRecord(pid=pid, created=time.time(), command=tuple(command))


def _end_orphans(records: Sequence[ProcessRecord]) -> None:
    # A pool process outlives its worker when that was killed. Its session still bears the
    # worker's id, which is given to nobody else while a member of the session lives.
    left = {record.pid: list(record.command) for record in records if _is_gone(record.pid)}
    for process in psutil.process_iter() if left else ():
        try:
            session = os.getsid(process.pid)
            if session in left and process.cmdline() == left[session]:
                process.kill()
        except (OSError, psutil.Error):
            continue


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _has_ended(pid: int) -> bool:
    if not hasattr(os, "waitid"):  # macOS
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _kill_group(leader: int) -> None:
    # Nobody may be left (macOS says "not permitted" for a group of zombies).
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
