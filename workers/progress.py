"""What long work on weights says while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """How far the work on one model is: ``done`` of ``total`` (bytes, or steps), and at what."""

    model: str
    done: int
    total: int | None
    note: str


Report = Callable[[Step], None]
"""Called often, from the thread that does the work."""


def quiet(step: Step) -> None:
    """Says nothing."""
