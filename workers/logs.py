"""Logs of the stack's processes: kept from the start before, and cut when they grow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

KEPT = 3
"""Older pieces of a log that stay: ``NAME.1`` the youngest."""


def rotate(path: Path) -> None:
    """Begin a new log; the one that is there becomes ``<name>.1``, that one ``<name>.2``."""
    if path.exists():
        _make_room(path)
        path.replace(_older(path, 1))


def cut(paths: Iterable[Path], most_bytes: int) -> None:
    """Empty logs that have grown beyond ``most_bytes``, after a copy to ``<name>.1``.

    The processes hold them open and go on writing at their new end; a line that is written between
    copy and cut is lost.
    """
    for path in paths:
        try:
            if path.stat().st_size <= most_bytes:
                continue
            _make_room(path)
            shutil.copyfile(path, _older(path, 1))
            _older(path, 1).chmod(0o600)
            os.truncate(path, 0)
        except FileNotFoundError:
            continue


def _make_room(path: Path) -> None:
    for number in range(KEPT - 1, 0, -1):
        if _older(path, number).exists():
            _older(path, number).replace(_older(path, number + 1))


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
