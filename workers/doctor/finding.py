"""What a look finds: how grave it is, what was seen, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

Tell = Callable[[str, int, int], None]
"""Told the name of a file that is hashed, the bytes hashed of it, and its size."""


class State(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARN = "warn"
    """Something is slower, dearer or absent; decisions are answered all the same."""
    FAIL = "fail"
    """Something that the profile needs does not work."""


@dataclass(frozen=True)
class Finding:
    """One line of the report; what is well needs no mend."""

    name: str
    state: State
    said: str
    mend: str = ""


def well(name: str, said: str) -> Finding:
    """It is as it should be."""
    return Finding(name, State.OK, said)


def warning(name: str, said: str, mend: str) -> Finding:
    """It works, and could be better."""
    return Finding(name, State.WARN, said, mend)


def failure(name: str, said: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(name, State.FAIL, said, mend)


def worst(findings: Iterable[Finding]) -> State:
    """The gravest state among findings."""
    states = {finding.state for finding in findings}
    return next((state for state in (State.FAIL, State.WARN) if state in states), State.OK)
