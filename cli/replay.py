"""``uptier replay``: a run's decisions asked again under another configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Engine

from cli.output import bar, milliseconds, out, percent, print_json, say, usd
from cli.session import session
from cli.waiting import wait_for_all
from config.catalog import Catalog
from config.errors import ConfigurationError, InputError
from config.load import load_catalog
from config.settings import Settings, load_settings
from ledger.batches import open_count
from ledger.database import migrate, open_ledger
from ledger.recorded import count_recorded, pairs, recorded, unfinished
from ledger.runs import RunInfo, find_run
from producers.replay import MODE, Comparison, Side, Unfit, as_replayed, compare, why_unfit
from routing.decision import CacheScope, Decision

CHUNK = 100
"""Decisions that are submitted together."""
SHOWN = 20
"""Changed decisions, and unfit ones, that are shown; with --json they are all there."""
LONGEST = 48
"""Characters of an answer in the table."""

Submit = Callable[[Sequence[Decision]], list[str]]


def replay(
    run: Annotated[str, typer.Argument(help="id of the run")],
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="only this kind; again for more")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first so many")] = None,
    tier: Annotated[str | None, typer.Option(help="start every decision on this tier")] = None,
    resume: Annotated[bool, typer.Option(help="go on with the replay that was cut short")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> int:
    """Ask a run's decisions again under another profile, and show what changes."""
    settings = load_settings(profile=profile)
    _check_tier(tier, settings.catalog)
    migrate(settings)
    engine = open_ledger(settings)
    try:
        source = _source(engine, run, kind or [])
        config = {"source": source.id, "kinds": kind or [], "limit": limit, "tier": tier}
        old = _cut_short(engine, settings, config) if resume else None
        found = _replayed(engine, settings, source, config, old)
    finally:
        engine.dispose()
    if as_json:
        print_json(found.model_dump_json(indent=2))
    else:
        _print(found)
    return 1 if found.open else 0


def _replayed(
    engine: Engine,
    settings: Settings,
    source: RunInfo,
    config: dict[str, Any],
    old: RunInfo | None,
) -> Comparison:
    before = _catalog_of(source)
    total = sum(count_recorded(engine, source.id, config["kinds"]).values())
    total = total if config["limit"] is None else min(total, config["limit"])
    with session(
        settings, mode=MODE, seed=source.seed, config=config, run=old, cache=CacheScope.OFF
    ) as live:
        asked = recorded(live.engine, source.id, config["kinds"], config["limit"])
        fit = _Fit(settings, before, config["tier"])
        _submit(fit.of(asked), live.client.submit, total, fit)
        count = total - len(fit.unfit)
        wait_for_all(live.engine, live.run.id, count, live.failure)
        return compare(
            pairs(live.engine, source.id, live.run.id),
            runs=(source.id, live.run.id),
            profiles=(source.profile, settings.profile),
            catalogs=(before, load_catalog(settings.profile)),
            unfit=fit.unfit,
            still_open=open_count(live.engine, live.run.id),
        )


class _Fit:
    """Lets decisions through that the configuration can ask, and keeps why it cannot others."""

    def __init__(self, settings: Settings, before: Catalog | None, tier: str | None) -> None:
        self._settings = settings
        self._before = before
        self._tier = tier
        self.unfit: list[Unfit] = []

    def of(self, asked: Iterator[Decision]) -> Iterator[Decision]:
        catalog, absent = self._settings.catalog, self._settings.absent_lanes
        for one in asked:
            again = as_replayed(one, self._tier)
            why = why_unfit(again, catalog, absent, self._before)
            if why is None:
                yield again
                continue
            self.unfit.append(Unfit(key=one.key, kind=one.kind, reason=why))
            if len(self.unfit) <= SHOWN:
                say(escape(f"decision {one.key!r} is not replayed: {why}"))


def _submit(asked: Iterator[Decision], submit: Submit, total: int, fit: _Fit) -> None:
    with bar() as progress:
        task = progress.add_task("asking", total=total, detail="")
        while chunk := list(islice(asked, CHUNK)):
            submit(chunk)
            progress.update(task, advance=len(chunk))
        progress.update(task, advance=len(fit.unfit))


def _source(engine: Engine, run: str, kinds: Sequence[str]) -> RunInfo:
    found = find_run(engine, run)
    if found is None:
        raise InputError(f"run {run!r} is not in the ledger: check the id")
    counts = count_recorded(engine, found.id)
    for kind in kinds:
        if kind not in counts:
            known = ", ".join(sorted(counts)) or "it has no decisions"
            raise InputError(f"--kind {kind!r} is not in run {run!r}: choose one of {known}")
    if not counts:
        raise InputError(f"run {run!r} has no decisions to be asked again: name another")
    return found


def _cut_short(engine: Engine, settings: Settings, config: dict[str, Any]) -> RunInfo:
    found = unfinished(engine, MODE, settings.profile, config)
    if found is None:
        raise InputError(
            f"there is no unfinished replay of run {config['source']!r} with these options under "
            f"profile {settings.profile!r}: start one without --resume"
        )
    return found


def _check_tier(tier: str | None, catalog: Catalog) -> None:
    if tier is not None and tier not in catalog.tiers:
        raise InputError(
            f"--tier {tier!r} is not in profile {catalog.profile!r}: choose one of "
            f"{', '.join(catalog.tiers)}"
        )


def _catalog_of(run: RunInfo) -> Catalog | None:
    """The whole profile of the recorded run, where it is still there."""
    try:
        return load_catalog(run.profile)
    except ConfigurationError as error:
        say(f"what run {run.id} was configured with is gone: {error}")
        return None


def _print(found: Comparison) -> None:
    out.print(
        f"Compared {found.compared:,} decisions: {found.same:,} answers are the same, "
        f"{found.changed:,} changed; {len(found.unfit):,} not replayed, {found.open:,} open"
    )
    out.print(_sides(found.before, found.after, found.known))
    kinds = Table(title="Answers", title_justify="left")
    kinds.add_column("kind")
    for name in ("same", "changed"):
        kinds.add_column(name, justify="right")
    for kind, one in found.by_kind.items():
        kinds.add_row(escape(kind), str(one.same), str(one.changed))
    out.print(kinds)
    out.print("Statuses: " + ", ".join(f"{name} {n:,}" for name, n in found.by_status.items()))
    if found.changes:
        out.print(_changes(found))


def _sides(before: Side, after: Side, known: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "before", "after"):
        table.add_column(heading)
    for name, texts in {
        "run": (before.run, after.run),
        "profile": (before.profile, after.profile),
        f"right of {known:,}": (percent(before.accuracy), percent(after.accuracy)),
        "cost": (usd(before.cost_usd), usd(after.cost_usd)),
        "work of models": (milliseconds(before.model_ms), milliseconds(after.model_ms)),
        "settled, p50": (milliseconds(before.settled_ms_p50), milliseconds(after.settled_ms_p50)),
        "settled, p95": (milliseconds(before.settled_ms_p95), milliseconds(after.settled_ms_p95)),
        "tiers": (_shares(before.by_tier), _shares(after.by_tier)),
    }.items():
        table.add_row(name, *texts)
    return table


def _shares(tiers: dict[str, int]) -> str:
    total = sum(Counter(tiers).values())
    return ", ".join(f"{name} {percent(n / total)}" for name, n in tiers.items())


def _changes(found: Comparison) -> Table:
    more = len(found.changes) - SHOWN
    title = f"Changed (the first {SHOWN} of {len(found.changes):,})" if more > 0 else "Changed"
    table = Table(title=title, title_justify="left")
    for heading in ("key", "kind", "before", "after", "right"):
        table.add_column(heading)
    for one in found.changes[:SHOWN]:
        table.add_row(
            escape(one.key), escape(one.kind),
            f"{_short(one.before.answer)} ({one.before.status})",
            f"{_short(one.after.answer)} ({one.after.status})",
            _short(one.expected or "-"),
        )  # fmt: skip
    return table


def _short(text: str) -> str:
    line = " ".join(text.split())
    return escape(line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}...")
