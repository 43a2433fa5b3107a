"""``uptier certify``: which lanes may be trusted with which kinds, by what was labelled of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.output import out, percent, print_json
from config.catalog import Catalog, OutputType
from config.errors import InputError
from config.settings import load_settings
from ledger import certificates
from ledger.certificates import Kept
from ledger.clock import now
from ledger.database import migrate, open_ledger
from workers.certifying import Examined
from workers.certifying import certify as certify_lanes

WIDE = 1000  # columns; a table takes what it needs of them


def certify(
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    kind: Annotated[str | None, typer.Option(help="this one only")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="keep nothing of it")] = False,
    show: Annotated[bool, typer.Option("--show", help="show what there is, fit nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> int:
    """Fit thresholds that keep errors below alpha to labelled history, and put them in force."""
    settings = load_settings(profile=profile)
    _known(settings.catalog, kind)
    migrate(settings)
    engine = open_ledger(settings)
    try:
        examined = [] if show else certify_lanes(
            engine, settings.catalog, now(), kind=kind, again=True, dry=dry_run
        )  # fmt: skip
        kept = [c for c in certificates.history(engine) if kind in (None, c.scope.kind)]
    finally:
        engine.dispose()
    if as_json:
        found = {
            "examined": [_examined(one) for one in examined],
            "certificates": [_certificate(one) for one in kept],
        }
        print_json(json.dumps(found, indent=2))
    else:
        _show(examined, kept)
    return 0


def _known(catalog: Catalog, kind: str | None) -> None:
    able = [name for name, one in catalog.kinds.items()
            if one.output in (None, OutputType.CHOICE)]  # fmt: skip
    if kind is not None and kind not in able:
        raise InputError(
            f"--kind {kind!r} is no choice in profile {catalog.profile!r}: choose one of "
            f"{', '.join(able)}"
        )


def _show(examined: list[Examined], kept: list[Kept]) -> None:
    for one in examined:
        if one.made is None:
            out.print(f"{one.scope.kind} on {one.scope.lane}: {one.labels} labelled answers, "
                      f"{one.needed} are needed", markup=False)  # fmt: skip
    fresh = [one.made for one in examined if one.made is not None]
    known = [k.certificate for k in kept]
    rows = [*(one for one in fresh if one.certificate not in known), *kept]
    if not rows:
        out.print("there are no certificates", markup=False)
        return
    table = Table("kind", "lane", "template", "standing", "thresholds", "accepted", "wrong",
                  "labels", "promise", "", box=None)  # fmt: skip
    for row in rows:
        table.add_row(*_row(row))
    Console(width=WIDE, highlight=False).print(table)


def _row(one: Kept) -> tuple[str, ...]:
    made, scope = one.certificate, one.scope
    least = ", ".join(f"{name} {_least(t)}" for name, t in made.thresholds.items())
    promise = f"at most {percent(made.alpha)} wrong, but with chance {made.delta:.3g}"
    return (
        scope.kind, scope.lane, scope.template or "-", one.standing.value, least or "-",
        str(made.n), str(made.errors), str(made.labels), promise, one.reason,
    )  # fmt: skip


def _least(threshold: float) -> str:
    return "never" if threshold > 1 else f"{threshold:.3f}"


def _examined(one: Examined) -> dict[str, Any]:
    made = None if one.made is None else _certificate(one.made)
    return {**asdict(one.scope), "labels": one.labels, "needed": one.needed, "certificate": made}


def _certificate(one: Kept) -> dict[str, Any]:
    made = one.certificate
    return {
        **asdict(one.scope), "standing": one.standing.value, "alpha": made.alpha,
        "delta": made.delta,
        "thresholds": {name: t if t <= 1 else None for name, t in made.thresholds.items()},
        "accepted": made.n, "wrong": made.errors, "labels": made.labels,
        "created_at": made.created_at, "lapsed_at": one.lapsed_at, "reason": one.reason,
    }  # fmt: skip
