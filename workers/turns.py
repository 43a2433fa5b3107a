"""Lanes that share CPU cores take turns: two models computing at once run many times slower."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWN_CORES = "UPTIER_OWN_CORES"
"""Set to 1 for a worker whose threads have cores of their own: it takes no turns."""


class CpuTurns:
    """A lock among all processes of this machine that name the same directory.

    The directory itself is locked, so nothing is left behind; the kernel gives the turn back when
    a process dies. A turn is one forward pass, milliseconds to a second.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the cores, and have them until the block ends."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Take no more turns."""
        os.close(self._descriptor)
