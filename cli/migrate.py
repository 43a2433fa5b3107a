"""``uptier migrate``: the ledger's tables, before anything else is started."""

from __future__ import annotations

from typing import Annotated

import typer

from config.settings import load_settings
from ledger.database import ledger_place, ledger_version
from ledger.database import migrate as bring_up


def migrate(
    profile: Annotated[str | None, typer.Option(help="profile, or a .toml file")] = None,
) -> None:
    """Bring the ledger to this version's tables; nothing happens if it has them."""
    settings = load_settings(profile=profile)
    bring_up(settings)
    typer.echo(f"the ledger at {ledger_place(settings)} is of version {ledger_version(settings)}")
