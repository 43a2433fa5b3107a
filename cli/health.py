"""``uptier health``: whether this machine serves a lane, for the probes of containers."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import say
from config.errors import BrokerUnavailable, LedgerError
from config.settings import Settings, load_settings
from ledger.workers import states_here

BROKER_TIMEOUT_S = 3.0
"""A probe ends after 20 s, and the broker may be tried several times within them."""


def health(
    lane: Annotated[str, typer.Argument(help="a lane, or quality")],
    live: Annotated[
        bool, typer.Option("--live", help="a ledger or a broker that is away is no fault of ours")
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
    if live and not states and _broker_is_away(settings):
        return 0
    return 0 if "ready" in states else 1


def _broker_is_away(settings: Settings) -> bool:
    """Whether a worker has to be silent: while it waits for its broker it tells the ledger nothing.
    To end it would only mean to load its model anew."""
    # Imported here: a probe that finds its worker well, as most do, asks no broker.
    from config.broker import check_broker
    from config.queues import make_app

    if settings.broker_url is None:
        return False
    app = make_app(settings, settings.broker_url)
    try:
        check_broker(app, BROKER_TIMEOUT_S)
    except BrokerUnavailable as error:
        say(str(error))
        return True
    finally:
        app.close()
    return False
