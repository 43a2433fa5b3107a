"""Prints the part of requirements.lock that Uptier runs with: no tools of its developers.

``python3 deploy/runtime_lock.py requirements.lock``; the standard library alone, for a builder.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

OURSELVES = "uptier (pyproject.toml)"
"""What the lock says of whatever the project itself asks for, in no group."""
NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==")


def entries(lock: str) -> dict[str, list[str]]:
    """The lines of each package of a lock, by name; it may have one entry a system."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in lock.splitlines():
        named = NAME.match(line)
        if named:
            lines = found.setdefault(named[1].lower(), [])
        lines.append(line)
    return found


def askers(lines: list[str]) -> set[str]:
    """Who asks for a package, by the comments that begin with ``via``."""
    comments = [line.strip() for line in lines if line.startswith("    #")]
    return {comment.lstrip("# ").removeprefix("via").strip() for comment in comments} - {""}


def runtime(lock: str) -> dict[str, list[str]]:
    """The packages that the project asks for, and those that they ask for."""
    found = entries(lock)
    wanted = {OURSELVES}
    while more := {n for n, lines in found.items() if n not in wanted and askers(lines) & wanted}:
        wanted |= more
    return {name: lines for name, lines in found.items() if name in wanted}


if __name__ == "__main__":
    kept = runtime(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if not kept:
        sys.exit(f"{sys.argv[1]} names nothing that Uptier asks for: is it the project's lock?")
    print("\n".join(line for lines in kept.values() for line in lines))
