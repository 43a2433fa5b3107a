"""``uptier cancel``: settles what is still open of a run, or one decision, as cancelled."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Engine

from config.errors import InputError
from config.settings import load_settings
from ledger import lifecycle
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.runs import find_run
from ledger.trail import trail


def cancel(
    run: Annotated[str | None, typer.Argument(help="id of a run", metavar="[RUN]")] = None,
    decision: Annotated[str | None, typer.Option(help="id of a decision, instead of a run")] = None,
) -> None:
    """Cancel what is still open, and stop work on it; a paid call that is under way is booked."""
    if (run is None) == (decision is None):
        raise InputError("uptier cancel needs either the id of a RUN or --decision ID: give one")
    settings = load_settings()
    migrate(settings)
    engine = open_ledger(settings)
    try:
        _require(engine, run, decision)
        ids = None if decision is None else [decision]
        ended = lifecycle.cancel(engine, now(), run_id=run, ids=ids)
    finally:
        engine.dispose()
    typer.echo(f"cancelled {len(ended.settled)} open decisions")


def _require(engine: Engine, run: str | None, decision: str | None) -> None:
    if decision is not None:
        trail(engine, decision)
    elif find_run(engine, run) is None:
        raise InputError(f"run {run!r} is not in the ledger: check the id")
