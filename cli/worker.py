"""``uptier worker``: serve one lane of the profile."""

from __future__ import annotations

from typing import Annotated

import typer

from config.settings import load_settings


def worker(
    lane: Annotated[str, typer.Argument(help="a lane of the profile, or quality")],
    profile: Annotated[str | None, typer.Option(help="profile to serve")] = None,
) -> int:
    """Serve one lane, or the quality check, until told to stop."""
    # Imported here: Celery's worker is not needed by any other command.
    from workers.app import run_worker

    return run_worker(load_settings(profile=profile), lane)
