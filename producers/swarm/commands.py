"""Runs a program for the daemon: no shell, no keys, bounded time and output, ended as a group."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

import psutil

from config.secrets import redact
from producers.swarm.sandbox import Refused

KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""All that a program gets of the environment; keys and settings of Uptier stay here."""
GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "PAGER": "cat",
}
GRACE_S = 2.0
"""Between asking a group of processes to end and ending it."""
POLL_S = 0.02
CHUNK = 65_536


@dataclass(frozen=True)
class Ran:
    """What a program did; ``code`` is ``None`` where its time was over."""

    code: int | None
    output: str


def run_program(
    argv: Sequence[str],
    directory: Path,
    *,
    timeout_s: float,
    max_chars: int,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Ran:
    """Run a program in a directory, without input, and give what it says on both its outputs.

    A name with a slash is one in that directory. ``more`` comes to its environment.

    Raises:
        Refused: there is no such program.
    """
    program = None if "\0" in "".join(argv) else _found(argv[0], directory)
    if program is None:
        raise Refused(f"program {argv[0][:80]!r} is not on this machine: choose another command")
    with tempfile.TemporaryDirectory(prefix="uptier-") as home:
        try:
            process = subprocess.Popen(
                [program, *argv[1:]], cwd=directory,
                env={**scrubbed(os.environ, home, directory), **more},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise Refused(f"program {argv[0][:80]!r} cannot be run: {error.strerror}") from None
        assert process.stdout is not None
        said = _Reader(process.stdout, max_chars)
        in_time = False
        try:
            in_time = _ends_within(process.pid, timeout_s)
        finally:
            end_group(process)
            said.close()
    return Ran(process.returncode if in_time else None, redact(said.text))


def scrubbed(environment: Mapping[str, str], home: str, directory: Path) -> dict[str, str]:
    """The environment of a program: a few harmless names, and a home that goes with it."""
    kept = {name: environment[name] for name in KEPT if name in environment}
    kept["PATH"] = _absolute(environment.get("PATH", os.defpath))
    made = {"HOME": home, "TMPDIR": home, "TERM": "dumb", "PYTHONDONTWRITEBYTECODE": "1"}
    # Without this git would look for a repository in the folders above.
    return {**kept, **made, **GIT, "GIT_CEILING_DIRECTORIES": str(directory.parent)}


def _found(name: str, directory: Path) -> str | None:
    """The path of a program; in ``PATH`` it is looked for as the program itself would."""
    if "/" in name:
        path = directory / name
        return str(path) if path.is_file() and os.access(path, os.X_OK) else None
    return shutil.which(name, path=_absolute(os.environ.get("PATH", os.defpath)))


def _absolute(path: str) -> str:
    """``PATH`` without what means a place in the directory, where the model may write programs."""
    return os.pathsep.join(one for one in path.split(os.pathsep) if one.startswith("/"))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a program and whatever it started in its session, and wait until it has.

    Its id is given back only after that, so that it cannot have passed to somebody else.
    """
    if not _has_ended(process.pid):
        _signal(process.pid, signal.SIGTERM)
        _ends_within(process.pid, GRACE_S)
    _signal(process.pid, signal.SIGKILL)
    _within(GRACE_S, lambda: not any(_lives_in(process.pid, one) for one in psutil.process_iter()))
    process.wait()


def middle_cut(text: str, most: int) -> str:
    """A text of at most about ``most`` characters: what is longer loses its middle."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _ends_within(pid: int, timeout_s: float) -> bool:
    return _within(timeout_s, lambda: _has_ended(pid))


def _within(timeout_s: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _has_ended(pid: int) -> bool:
    """Whether a child of ours has ended; it stays a zombie until it is waited for."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _lives_in(group: int, process: psutil.Process) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class _Reader:
    """Reads to the end on a thread of its own, and keeps the beginning and the end of it."""

    def __init__(self, stream: IO[bytes], max_chars: int) -> None:
        self._stream = stream
        self._most = max_chars
        self._head = b""
        self._tail = b""
        self._count = 0
        self._thread = threading.Thread(target=self._read, name="command output", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """What was said; of a long text the middle is left out."""
        kept = len(self._head) + len(self._tail)
        if self._count <= kept:
            return middle_cut((self._head + self._tail).decode("utf-8", "replace"), self._most)
        cut = f"\n... {self._count - kept} bytes left out ...\n".encode()
        return (self._head + cut + self._tail).decode("utf-8", "replace")

    def close(self) -> None:
        """Wait for the end of it, which has come: the whole group has ended."""
        self._thread.join(GRACE_S)

    def _read(self) -> None:
        half = self._most // 2
        with self._stream, suppress(OSError, ValueError):
            while chunk := os.read(self._stream.fileno(), CHUNK):
                self._count += len(chunk)
                room = half - len(self._head)
                self._head += chunk[:room] if room > 0 else b""
                self._tail = (self._tail + (chunk[room:] if room > 0 else chunk))[-half:]
