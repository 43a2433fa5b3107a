"""``uptier top``: queues, lanes, workers, rates and money, as they change."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from cli.keyboard import key_within, single_keys
from cli.output import out, print_json
from cli.top_screen import screen
from config.errors import InputError
from config.settings import load_settings
from workers.interrupts import Interrupts
from workers.looking import Looker, take_two

KEYS = "q leaves, space looks now"
LEAVE = ("q", "Q")
BUSY = 10
"""A look is followed by a rest at least so many times as long, so that looking costs little."""


def top(
    every: Annotated[
        float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one look as JSON.")] = False,
    profile: Annotated[
        str | None, typer.Option(help="Profile, or the path of a .toml file.", metavar="NAME")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data directory of the stack.", metavar="DIRECTORY")
    ] = None,
) -> None:
    """Watch the stack of this machine, or of the broker and the database that are set."""
    if math.isnan(every):
        raise InputError("--every nan is no number of seconds: give one from 0.2 to 3600")
    with Looker(load_settings(profile=profile, data_dir=data_dir)) as looker:
        if once or as_json or not out.is_terminal:
            found = take_two(looker, min(every, 1.0))
            print_json(found.model_dump_json(indent=2)) if as_json else out.print(
                screen(found, out.width)
            )
            return
        _watch(looker, every)


def _watch(looker: Looker, every_s: float) -> None:
    # Drawn by nobody but the loop: what is on the screen is one look as a whole.
    live = Live(console=out, screen=True, auto_refresh=False)
    # Ctrl-C, SIGTERM and a hang-up leave, too, and leave the terminal as it was.
    with suppress(KeyboardInterrupt), Interrupts() as interrupts, single_keys(), live:
        interrupts.release()
        key = ""
        while key not in LEAVE:
            began = time.monotonic()
            live.update(screen(looker.look(), out.width, KEYS), refresh=True)
            took = time.monotonic() - began
            key = key_within(max(every_s - took, BUSY * took))
