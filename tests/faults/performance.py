"""Plays scenes one after the other and gives their outcomes."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tests.faults import (  # noqa: F401 - entering a module enters its scenes
    scenes_of_brokers,
    scenes_of_crashes,
    scenes_of_messages,
    scenes_of_producers,
    scenes_of_storage,
    scenes_of_time,
    scenes_of_workers,
)
from tests.faults.ground import Grounds
from tests.faults.outcome import Outcome
from tests.faults.rounds import Rounds, Tell
from tests.faults.scene import SCENES, Form, Place, Scene
from tests.faults.stage import Stage

SHORT_PATIENCE_S = 40.0
ORDER = (Place.SHARED, Place.OWN_BROKER, Place.SMALL_DISK, Place.NONE)


def in_order(numbers: Iterable[int] = (), *, short: bool) -> list[Scene]:
    """The scenes of those numbers, or all, those of one ground together."""
    wanted = set(numbers) or set(SCENES)
    chosen = [SCENES[n] for n in sorted(wanted)]
    return sorted(chosen, key=lambda s: ORDER.index(place_of(s, short=short)))


def place_of(scene: Scene, *, short: bool) -> Place:
    """Where the scene is played in that form."""
    return scene.short_place or scene.place if short else scene.place


def play(scene: Scene, grounds: Grounds, *, short: bool, rounds: int | None, tell: Tell) -> Outcome:
    """Play one scene; what goes wrong in playing it is a complaint, too."""
    form = _form(scene.short if short else scene.long, rounds)
    if short:  # so that a test fails before its own time is up
        form = replace(form, patience_s=SHORT_PATIENCE_S)
    rng = grounds.rng(scene.number)
    place = place_of(scene, short=short)
    tell(f"fault {scene.number}: {scene.title}")
    if place is Place.NONE:
        return _perform(scene, Rounds(scene, form, rng, tell))
    with Stage(scene, form, grounds.at(place), rng, tell) as stage:
        return _perform(scene, stage)


def leftovers(grounds: Grounds) -> Iterator[str]:
    """What the brokers still hold after all scenes."""
    return grounds.leftovers()


def _perform(scene: Scene, stage: Rounds) -> Outcome:
    try:
        scene.play(stage)
    except Exception:
        stage.complain(f"the scene broke off: {traceback.format_exc()}")
    return stage.finish()


def _form(form: Form, rounds: int | None) -> Form:
    if rounds is None:
        return form
    if not form.values:
        return replace(form, rounds=rounds)
    values = (form.values * rounds)[:rounds]
    return replace(form, values=values)
