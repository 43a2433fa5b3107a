"""``uptier policy``: the learnt policy in force and those before it; how one is put in force."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.output import out, percent, print_json
from cli.sources import Source
from config.errors import InputError
from config.settings import Settings, load_settings
from ledger import policies
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.policies import Kept
from routing.evaluation import Evaluation
from workers.policies import adopt

WIDE = 1000  # columns; a table takes what it needs of them


def policy(
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    retire: Annotated[bool, typer.Option("--retire", help="end the one in force")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> int:
    """Show the learnt policies: what is in force, and why others are not; or retire it."""
    settings = load_settings(profile=profile)
    migrate(settings)
    engine = open_ledger(settings)
    try:
        if retire and not policies.retire(engine, now()):
            raise InputError("--retire: no policy is in force; see `uptier policy`")
        kept = policies.history(engine)
    finally:
        engine.dispose()
    if as_json:
        print_json(json.dumps({"policies": [_object(one) for one in kept]}, indent=2))
    else:
        _show(kept)
    return 0


def put_in_force(settings: Settings, source: Source, found: Evaluation) -> Kept | None:
    """Adopt what an evaluation certified; ``None`` if it certified nothing.

    Raises:
        InputError: what the run taught does not hold for what serves now.
    """
    if found.learnt is None:
        return None
    engine, labels = open_ledger(settings), int(source.calibration.sum())
    try:
        return adopt(
            engine, settings.catalog, source.name, found.learnt, found.goal, labels, now()
        )  # fmt: skip
    finally:
        engine.dispose()


def show_adopted(one: Kept, left_out: Sequence[str]) -> None:
    """Say what was put in force."""
    out.print(f"adopted as policy {one.id}, in force within a minute: {_starts(one)}", markup=False)
    if left_out:
        names = ", ".join(left_out)
        out.print(f"left out, as they keep to the certificates of their lanes: {names}")


def adopted_object(one: Kept | None, left_out: Sequence[str]) -> dict[str, Any] | None:
    """What was put in force, with the kinds that were left out; ``None`` if nothing was."""
    return None if one is None else {**_object(one), "left_out": list(left_out)}


def _show(kept: Sequence[Kept]) -> None:
    if not kept:
        out.print("there are no policies")
        return
    table = Table("policy", "standing", "run", "promise", "labels", "starts", "", box=None)
    for one in kept:
        promise = f"{percent(one.target)} of the top's accuracy, but with chance {one.delta:g}"
        table.add_row(str(one.id), one.standing.value, one.run, promise, str(one.labels),
                      _starts(one), one.reason)  # fmt: skip
    Console(width=WIDE, highlight=False).print(table)


def _starts(one: Kept) -> str:
    return ", ".join(f"{kind} on {lane}" for kind, lane in sorted(one.starts.items()))


def _object(one: Kept) -> dict[str, Any]:
    return {
        "id": one.id, "standing": one.standing.value, "reason": one.reason, "run": one.run,
        "target": one.target, "delta": one.delta, "labels": one.labels, "starts": dict(one.starts),
        "served": [asdict(scope) for scope in one.served], "created_at": one.created_at,
        "lapsed_at": one.lapsed_at,
    }  # fmt: skip
