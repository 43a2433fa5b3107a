"""``uptier cache``: what the cache holds and how often it serves, and how to empty it."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.output import out, percent, print_json
from config.errors import InputError
from config.settings import load_settings
from ledger.cache import clear as forget
from ledger.cache_stats import CacheStats, KindUse, cache_stats
from ledger.database import migrate, open_ledger
from workers.embedding import NAMES

WIDE = 1000  # columns; a table takes what it needs of them

app = typer.Typer(
    help="What the cache holds, and how to empty it.", no_args_is_help=True, rich_markup_mode=None
)

Profile = Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")]
AsJson = Annotated[bool, typer.Option("--json", help="print everything as JSON")]


@app.command()
def stats(profile: Profile = None, as_json: AsJson = False) -> None:
    """Show entries, hits and hit rates by kind, and what audits say of alike questions."""
    settings = load_settings(profile=profile)
    migrate(settings)
    engine = open_ledger(settings)
    try:
        found = cache_stats(engine, settings.catalog, NAMES[settings.catalog.cache.embedder])
    finally:
        engine.dispose()
    if as_json:
        print_json(json.dumps(found.model_dump(mode="json"), indent=2))
    else:
        _show(found)


@app.command()
def clear(
    kind: Annotated[str | None, typer.Option(help="this one only")] = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Forget cached answers and the audits of alike ones; nothing else is lost by it."""
    settings = load_settings(profile=profile)
    kinds = [name for name, known in settings.catalog.kinds.items() if known.cache]
    if kind is not None and kind not in kinds:
        known = ", ".join(kinds) or "none: no kind of this profile is cached"
        raise InputError(
            f"--kind {kind!r} is not cached in profile {settings.catalog.profile!r}: choose one "
            f"of {known}"
        )
    migrate(settings)
    engine = open_ledger(settings)
    try:
        entries, audits = forget(engine, kind)
    finally:
        engine.dispose()
    if as_json:
        print_json(json.dumps({"kind": kind, "entries": entries, "audits": audits}))
    else:
        out.print(f"forgot {entries} answers and {audits} audits", markup=False)


def _show(found: CacheStats) -> None:
    average = "-" if found.average_hits is None else f"{found.average_hits:.2f}"
    out.print(f"Entries  {found.entries:,} of at most {found.max_entries:,}")
    out.print(f"Hits     {found.hits:,}, {average} an entry")
    out.print(
        f"Served   {found.served:,} of {found.decisions:,} decisions ({percent(found.hit_rate)})"
    )
    table = Table("kind", box=None)
    for name in ("entries", "hits", "decisions", "served", "hit rate", "kept"):
        table.add_column(name, justify="right")
    table.add_column("alike questions")
    for kind, use in found.by_kind.items():
        kept = "-" if use.ttl_s is None else f"{use.ttl_s:g} s"
        table.add_row(
            kind, str(use.entries), str(use.hits), str(use.decisions), str(use.served),
            percent(use.hit_rate), kept, _alike(use),
        )  # fmt: skip
    Console(width=WIDE, highlight=False, markup=False).print(table)


def _alike(use: KindUse) -> str:
    one = use.semantic
    if one is None:
        return "not served"
    measured = "nothing audited yet"
    if one.disagreement is not None:
        measured = (
            f"{one.audited - one.agreed} of {one.audited} audited differ "
            f"({percent(one.disagreement)}), agreement at least {percent(one.agreement_at_least)} "
            f"(wanted {percent(one.floor)})"
        )
    return f"{one.state.value} at similarity {one.similarity:g}: {measured}"
