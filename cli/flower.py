"""``uptier flower``: workers and tasks in a browser."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from cli.output import say
from config.settings import load_settings


def flower(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Address to listen on; beyond this machine with a login.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Profile, or the path of a .toml file.", metavar="NAME")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data directory of the stack.", metavar="DIRECTORY")
    ] = None,
) -> None:
    """Watch the workers of the stack that runs here, or of the broker that is set, in a browser."""
    # Imported here: Flower and Tornado are needed by no other command.
    from workers.flower import run_flower

    settings = load_settings(
        profile=profile, data_dir=data_dir, flower_port=port, flower_address=address
    )
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
    run_flower(settings, lambda url: say(f"Flower serves on {url}; Ctrl-C ends it"))
