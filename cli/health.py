"""``uptier health``: whether this machine serves a lane, for the probes of containers."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import say
from config.errors import LedgerError
from config.settings import load_settings
from ledger.workers import states_here


def health(
    lane: Annotated[str, typer.Argument(help="a lane, or quality")],
    live: Annotated[
        bool, typer.Option("--live", help="a ledger that cannot be asked is no fault of ours")
    ] = False,
    profile: Annotated[str | None, typer.Option(help="profile, or a .toml file")] = None,
) -> int:
    """Exit 0 if a worker of this machine serves the lane, 1 if not."""
    settings = load_settings(profile=profile)
    try:
        states = states_here(settings, lane)
    except LedgerError as error:
        say(str(error))
        return 0 if live else 1
    typer.echo(f"{lane}: {', '.join(states) or 'no sign of life'}")
    return 0 if "ready" in states else 1
