"""``uptier models``: weights on this machine: list, pull, prepare; and how models are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from cli import calibrate, prompts
from cli.output import err, out, percent, print_json, say
from config.settings import load_settings
from workers.choices import Candidate
from workers.models import ModelInfo, list_models
from workers.prepare import Prepared
from workers.prepare import prepare as prepare_models
from workers.progress import Report, Step
from workers.pull import pull as pull_models

app = typer.Typer(
    help="Local models: weights (list, pull, prepare), prompts, calibration.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
WIDE = 1000  # columns; a table takes what it needs of them
Profile = Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")]
Names = Annotated[list[str] | None, typer.Argument(help="models; those the lanes use if absent")]
AsJson = Annotated[bool, typer.Option("--json", help="print everything as JSON")]


@app.command("list")
def list_command(profile: Profile = None, as_json: AsJson = False) -> int:
    """Show the models of the profile, their state, and the format that is served."""
    found = list_models(load_settings(profile=profile))
    if as_json:
        rows = [{**asdict(info), "path": str(info.path)} for info in found]
        print_json(json.dumps(rows, indent=2))
        return 0
    table = Table("model", "lanes", "tiers", "size", "state", "format", "where", box=None)
    for info in found:
        table.add_row(*_row(info))
    _print(table)
    for info in found:
        if info.fault:
            out.print(info.fault, markup=False)
    return 0


@app.command("pull")
def pull_command(names: Names = None, profile: Profile = None) -> int:
    """Fetch and verify weights, or have Ollama fetch its own; nothing is fetched twice."""
    # Its HTTP client would delay the start of every other command.
    from workers.ollama_pull import ollama_models, pull_ollama

    settings = load_settings(profile=profile)
    columns = [DownloadColumn(), TransferSpeedColumn()]
    theirs = ollama_models(settings, names or ())
    ours = [name for name in names or () if name not in theirs]
    with _bar(columns) as report:
        pulled = pull_models(settings, ours, report) if ours or not names else []
        served = [pull_ollama(settings, name, report) for name in theirs]
    for there in served:
        how = "pulled" if there.fetched else "already there"
        out.print(f"{there.name}: {how}, {_size(there.size)}, in Ollama as {there.remote}",
                  markup=False)  # fmt: skip
    for done in pulled:
        how = "pulled" if done.fetched else "already here"
        out.print(f"{done.name}: {how}, {_size(done.size)}, {done.path}", markup=False)
    return 0


@app.command("prepare")
def prepare_command(
    names: Names = None,
    profile: Profile = None,
    again: Annotated[bool, typer.Option(help="measure even if a choice is remembered")] = False,
    as_json: AsJson = False,
) -> int:
    """Measure CPU formats and keep the fastest one that leaves the answers as they are."""
    settings = load_settings(profile=profile)
    with _bar([MofNCompleteColumn()]) as report:
        prepared = prepare_models(settings, names or (), again=again, report=report)
    if as_json:
        rows = {p.name: p.choice.model_dump(mode="json") for p in prepared}
        print_json(json.dumps(rows, indent=2))
        return 0
    for done in prepared:
        _show(done)
    if any(done.disturbed for done in prepared):
        say("other work slowed the measurement: repeat it with --again when the machine is quiet")
    return 0


def _show(prepared: Prepared) -> None:
    choice, how = prepared.choice, "chosen" if prepared.measured else "remembered"
    out.print(f"{prepared.name}: {choice.format} ({how}: {choice.reason})", markup=False)
    if not choice.candidates:
        return
    table = Table("format", "prefill tokens/s", "decode tokens/s", "typical decision",
                  "same answer", "KL nats", "", box=None)  # fmt: skip
    for found in choice.candidates:
        table.add_row(*_figures(found, chosen=found.format == choice.format))
    _print(table)


def _figures(found: Candidate, *, chosen: bool) -> tuple[str, ...]:
    if found.fault is not None:
        return (found.format, "-", "-", "-", "-", "-", found.fault)
    note = "chosen" if chosen else "" if found.faithful else "not faithful"
    return (
        found.format,
        f"{found.prefill:,.0f}",
        f"{found.decode:,.0f}",
        f"{1000 * found.seconds:,.0f} ms",
        percent(found.agreement),
        f"{found.divergence:.4f}",
        note,
    )


def _row(info: ModelInfo) -> tuple[str, ...]:
    share = f" {percent(info.here / info.size)}" if info.size and info.state == "partial" else ""
    return (
        info.name,
        " ".join(info.lanes) or "-",
        " ".join(info.tiers) or "-",
        _size(info.size or info.here),
        f"{info.state}{share}",
        info.format or "-",
        str(info.path),
    )


def _print(table: Table) -> None:
    """Whole, also where the terminal is narrow: a path cut short is of no use."""
    Console(width=WIDE, highlight=False).print(table)


@contextmanager
def _bar(columns: list[ProgressColumn]) -> Iterator[Report]:
    """A bar for each model on standard error."""
    text, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    with Progress(text, BarColumn(), *columns, note, TimeElapsedColumn(), console=err) as progress:
        tasks = {}

        def report(step: Step) -> None:
            if step.model not in tasks:
                tasks[step.model] = progress.add_task(step.model, note="")
            progress.update(
                tasks[step.model], completed=step.done, total=step.total, note=step.note
            )

        yield report


def _size(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size else "-"


app.command("prompts")(prompts.prompts)
app.command("calibrate")(calibrate.calibrate)
