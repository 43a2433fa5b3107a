"""Python and the main packages, beside what the lock says."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

import config
from workers.doctor.finding import Finding, failure, warning, well

OURS = "uptier"
LEAST = (3, 11)
LOCK = "requirements.lock"
LOCKED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
SHOWN = ("celery", "kombu", "llama-cpp-python", "sqlmodel", "pydantic", "fastapi")
"""What a report is asked about first."""


def software() -> list[Finding]:
    """Python, and every package that Uptier asks for by itself."""
    return [_python(), _packages(_direct(), locked(_lock()))]


def _python() -> Finding:
    said = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info[:2] < LEAST:
        return failure("Python", said, "install Python 3.11 or newer, then run `make install`")
    return well("Python", said)


def _lock() -> Path:
    return Path(config.__file__).parent.parent / LOCK


def locked(path: Path) -> dict[str, set[str]] | None:
    """The versions of each package in a lock, one for each kind of system; ``None`` without one."""
    try:
        lock = path.read_text(encoding="utf-8")
    except OSError:
        return None
    found: dict[str, set[str]] = {}
    for name, held in LOCKED.findall(lock):
        found.setdefault(_plain(name), set()).add(held)
    return found


def _direct() -> list[str]:
    try:
        asked = requires(OURS) or []
    except PackageNotFoundError:
        return list(SHOWN)
    needed = (Requirement(line) for line in asked)
    return [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]


def _packages(names: list[str], lock: Mapping[str, set[str]] | None) -> Finding:
    here = {name: _version(name) for name in names}
    missing = [name for name, found in here.items() if found is None]
    if missing:
        return failure("packages", f"{', '.join(missing)} not installed", "run `make install`")
    shown = ", ".join(f"{name} {here[name]}" for name in SHOWN if here.get(name))
    if lock is None:
        return well("packages", f"{shown}; no lock lies beside this installation")
    others = [
        f"{name} {found} instead of {' or '.join(sorted(lock[_plain(name)]))}"
        for name, found in here.items()
        if lock.get(_plain(name)) and found not in lock[_plain(name)]
    ]
    if others:
        said = f"not as the lock has them: {', '.join(others)}"
        return warning("packages", said, "run `make clean install`")
    return well("packages", f"{shown}; all {len(names)} as the lock has them")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
