"""Scenes: a fault each, with how often it strikes in the long and in the short form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Play = Callable[[Any], None]
"""Plays a scene on a :class:`tests.faults.stage.Stage`, or on its base where it has no ground."""


class Place(StrEnum):
    """Where a scene is played."""

    SHARED = "shared"
    """An embedded stack that scenes use one after the other."""
    OWN_BROKER = "own broker"
    """Workers whose broker the scene may kill, behind a proxy that it may stall."""
    SMALL_DISK = "small disk"
    """A stack on a small file system that the scene may fill."""
    NONE = "none"
    """The scene starts what it needs."""


@dataclass(frozen=True)
class Form:
    """How long a scene is: as many rounds as values, or ``rounds`` if there are none."""

    rounds: int = 1
    values: tuple[float, ...] = ()
    """What varies from round to round, in seconds."""
    patience_s: float = 120.0
    """A decision that is not settled so long after its fault is lost."""


@dataclass(frozen=True)
class Scene:
    """A fault and how it is played; ``bound_s`` is the longest recovery that is promised."""

    number: int
    title: str
    play: Play
    place: Place
    long: Form
    short: Form
    bound_s: float | None
    short_place: Place | None = None


SCENES: dict[int, Scene] = {}


def scene(
    number: int,
    title: str,
    *,
    long: Form,
    short: Form,
    bound_s: float | None,
    place: Place = Place.SHARED,
    short_place: Place | None = None,
) -> Callable[[Play], Play]:
    """Enter a function into the list of scenes."""

    def enter(play: Play) -> Play:
        SCENES[number] = Scene(number, title, play, place, long, short, bound_s, short_place)
        return play

    return enter
