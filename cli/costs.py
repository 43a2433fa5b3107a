"""``uptier costs``: what was spent, what would be, and whether that is as it should be."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from cli import costs_plots, costs_tables
from cli.costs_sources import (
    Asked,
    logged,
    malformed,
    opened,
    opened_log,
    reference_of,
    since_of,
    watched,
)
from cli.costs_workloads import Wish, workloads_of
from cli.output import print_json, say
from cli.plots import check_plots
from config.errors import InputError
from config.load import load_catalog
from config.settings import load_settings
from ledger.spending import critics, overruns
from ledger.usage_records import usage_records
from producers.costs import measured, project
from producers.costs_ladder import Ladder, ladder_of, references_of
from producers.costs_log import atomic, format_of, write_log
from producers.costs_projection import Projection
from producers.costs_report import CostReport, cost_report
from producers.costs_sums import By, sum_up
from producers.costs_targets import Check, api_use, hold, is_met

app = typer.Typer(
    help="What was spent, what would be, and whether that is as it should be.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip

Run = Annotated[str | None, typer.Option(help="this run only")]
Since = Annotated[str, typer.Option(help="1h, 24h, 7d or the like, or all")]
OneKind = Annotated[str | None, typer.Option("--kind", "--topic", help="this kind only")]
Group = Annotated[By, typer.Option("--by", help="what the sums are told apart by")]
Profile = Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")]
OneReference = Annotated[
    str | None, typer.Option(help="model that everything is priced on beside; else the profile's")
]
Form = Annotated[str | None, typer.Option("--format", help="jsonl or csv; else by the ending")]
Plot = Annotated[Path | None, typer.Option(help="draw it, a .png")]
AsJson = Annotated[bool, typer.Option("--json", help="print everything as JSON")]


@app.command()
def report(
    run: Run = None,
    since: Since = "all",
    kind: OneKind = None,
    by: Group = By.TIER,
    reference: OneReference = None,
    profile: Profile = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Sum up what the ledger says of calls, cost, tokens, quality and savings."""
    asked = _asked(run, since, kind, plot)
    with opened(load_settings(profile=profile), run, profile) as ledger:
        prices = reference_of(ledger.catalog, reference)
        totals = ledger.totals(asked, prices, by)
        found = cost_report(
            totals, asked.name, asked.since, kind, by, next(iter(prices), None), ledger.notes
        )
    _show_report(found, plot, as_json=as_json)


@app.command("import")
def import_log(
    file: Annotated[Path, typer.Argument(help="a usage log; - is standard input")],
    run: Run = None,
    since: Since = "all",
    kind: OneKind = None,
    by: Group = By.TIER,
    reference: OneReference = None,
    profile: Profile = None,
    form: Form = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> int:
    """Sum up a usage log as if it were the ledger; the ledger stays as it is."""
    asked = _asked(run, since, kind, plot)
    prices = reference_of(load_catalog(load_settings(profile=profile).profile), reference)
    with opened_log(file, form) as log:
        totals = sum_up(watched(logged(log, asked)), prices.values(), [by])
    found = cost_report(totals, str(file), asked.since, kind, by, next(iter(prices), None), [])
    status = malformed(log)
    _show_report(found, plot, as_json=as_json)
    return status


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="a .jsonl or .csv; - is standard output")],
    run: Run = None,
    since: Since = "all",
    kind: OneKind = None,
    profile: Profile = None,
    form: Form = None,
) -> None:
    """Write one line for each call, and for each decision that no call answered."""
    asked, stdout = _asked(run, since, kind, None), file == Path("-")
    chosen = format_of(None if stdout else file, form)
    with (
        opened(load_settings(profile=profile), run, profile) as ledger,
        usage_records(ledger.engine, asked.selection(), ledger.lanes) as records,
    ):
        if stdout:
            ledger.check_kind(kind, write_log(records, sys.stdout, chosen))
            return
        with atomic(file) as unfinished:
            count = write_log(watched(records), unfinished, chosen)
            ledger.check_kind(kind, count)
    say(f"wrote {count:,} records to {file}")


@app.command("project")
def project_command(
    workloads: Annotated[
        list[str] | None, typer.Argument(help="light, medium, heavy, eddt, or .toml files")
    ] = None,
    mix: Annotated[str | None, typer.Option(help="a mix of your own: KIND=SHARE,...")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="calls a day")] = None,
    tokens: Annotated[str | None, typer.Option(help="of every call: IN or IN+OUT")] = None,
    output_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="of tokens that are not told apart")
    ] = None,
    fallback: Annotated[
        float | None, typer.Option(min=0, max=1, help="share of local calls that end on the API")
    ] = None,
    whole_calls: Annotated[
        bool | None, typer.Option(help="round each kind's calls a day down")
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="days that it takes, or that were used")
    ] = None,
    usage: Annotated[Path | None, typer.Option(help="a usage log instead; - is input")] = None,
    form: Form = None,
    run: Annotated[str | None, typer.Option(help="a run of the ledger instead")] = None,
    since: Annotated[str | None, typer.Option(help="of the ledger instead: 7d, or all")] = None,
    kind: OneKind = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="model that everything is priced on; may be repeated")
    ] = None,
    cloud: Annotated[str | None, typer.Option(help="model of all API lanes")] = None,
    profile: Profile = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> int:
    """Project costs of workloads, or of what was really used, over days to years."""
    wish = Wish(tuple(workloads or ()), mix, iterations, tokens, output_share, fallback,
                whole_calls, days)  # fmt: skip
    used = usage is not None or run is not None or since is not None
    asked, named = _asked(run, since or "all", kind, plot), reference or []
    _check_source(wish, usage, form, asked, cloud, used=used)
    status = 0
    if usage is not None:
        found, status = _of_log(usage, form, asked, wish, profile, named)
    elif used:
        found = _of_ledger(asked, wish, profile, named)
    else:
        ladder = ladder_of(load_catalog(load_settings(profile=profile).profile), cloud)
        found = _of_workloads(wish, ladder, named)
    _show_projections(found, plot, as_json=as_json)
    return status


@app.command()
def check(
    run: Run = None,
    since: Annotated[str | None, typer.Option(help="7d if no run is named, else all")] = None,
    reference: OneReference = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> int:
    """Hold what was measured to the profile's targets; exit 1 if one is missed."""
    asked = _asked(run, since or ("all" if run else "7d"), None, None)
    with opened(load_settings(profile=profile), run, profile) as ledger:
        prices, chosen = reference_of(ledger.catalog, reference), asked.selection()
        totals = ledger.totals(asked, prices)
        held = hold(ledger.catalog.targets, totals, overruns(ledger.engine, chosen),
                    critics(ledger.engine, chosen))  # fmt: skip
    found = Check(source=asked.name, since=asked.since, reference_model=next(iter(prices), None),
                  targets=held, api=api_use(totals), met=is_met(held))  # fmt: skip
    if as_json:
        print_json(found.model_dump_json(indent=2))
    else:
        costs_tables.print_check(found)
    return 0 if found.met else 1


def _asked(run: str | None, since: str, kind: str | None, plot: Path | None) -> Asked:
    since_of(since)  # before anything is opened
    if plot is not None:
        check_plots(plot)
    return Asked(run, since, kind)


def _check_source(
    wish: Wish, usage: Path | None, form: str | None, asked: Asked, cloud: str | None, *, used: bool
) -> None:
    if usage is not None and (asked.run is not None or asked.since != "all"):
        raise InputError("--usage is a log, --run and --since are of the ledger: name one of them")
    if used and (wish.changes or cloud is not None):
        raise InputError(
            "what was used is projected as it was: workloads and their options (all but --days) do "
            "not go with --usage, --run or --since"
        )
    if usage is None and form is not None:
        raise InputError(f"--format {form!r} is that of a log: name one with --usage")
    if not used and asked.kind is not None:
        raise InputError(f"--kind {asked.kind!r} narrows what was used: name --run or --since")


def _of_workloads(wish: Wish, ladder: Ladder, named: Sequence[str]) -> list[Projection]:
    return [
        project(one, ladder, references_of(ladder.catalog, named, one.references))
        for one in workloads_of(wish)
    ]


def _of_ledger(
    asked: Asked, wish: Wish, profile: str | None, named: Sequence[str]
) -> list[Projection]:
    with opened(load_settings(profile=profile), asked.run, profile) as ledger:
        prices = references_of(ledger.catalog, named)
        totals = ledger.totals(asked, prices, By.KIND, By.TIER)
        ladder = ladder_of(ledger.catalog)
        return [measured(totals, asked.name, wish.span, ladder, list(prices))]


def _of_log(
    path: Path, form: str | None, asked: Asked, wish: Wish, profile: str | None,
    named: Sequence[str],
) -> tuple[list[Projection], int]:  # fmt: skip
    catalog = load_catalog(load_settings(profile=profile).profile)
    prices = references_of(catalog, named)
    with opened_log(path, form) as log:
        totals = sum_up(watched(logged(log, asked)), prices.values(), [By.KIND, By.TIER])
    found = measured(totals, str(path), wish.span, ladder_of(catalog), list(prices))
    return [found], malformed(log)


def _show_report(found: CostReport, plot: Path | None, *, as_json: bool) -> None:
    if plot is not None:
        costs_plots.plot_report(plot, found)
    if as_json:
        print_json(found.model_dump_json(indent=2))
    else:
        costs_tables.print_report(found)


def _show_projections(found: Sequence[Projection], plot: Path | None, *, as_json: bool) -> None:
    if plot is not None:
        costs_plots.plot_projections(plot, found)
    if as_json:
        print_json(json.dumps(_listed(found), indent=2))
    else:
        costs_tables.print_projections(found)


def _listed(found: Sequence[BaseModel]) -> object:
    return [one.model_dump(mode="json") for one in found]
