"""``uptier report``: what happened in a run, in the terminal, as JSON, or as a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine

from cli.output import err, print_json
from cli.page.document import Found, document
from cli.report import print_report
from config.errors import ConfigurationError, InputError
from config.files import written_whole
from config.load import load_catalog
from config.settings import Settings, load_settings
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.reports import Report
from ledger.reports import report as report_of
from ledger.run_extremes import slowest, worst_scored
from ledger.run_story import run_story
from ledger.runs import RunInfo, find_run


def report(
    run: Annotated[
        str | None, typer.Argument(help="Id of a run; the latest if absent.", show_default=False)
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Write a page for a browser.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The page's file; run-<id>.html here if absent.", metavar="FILE"),
    ] = None,
    texts: Annotated[
        bool, typer.Option("--texts/--no-texts", help="Prompts and answers on the page.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what happened in a run: who answered, how fast, how surely, at what cost."""
    if out is not None and not html:
        raise InputError(f"--out {out} is for the page: give --html too")
    if html and as_json:
        raise InputError("--html and --json are two reports: give one of them")
    settings = load_settings()
    migrate(settings)
    engine = open_ledger(settings)
    try:
        info = _run(engine, run)
        if html:
            typer.echo(_write(engine, settings, info, out, texts))
            return
        found = _report(engine, settings, info)
    finally:
        engine.dispose()
    if as_json:
        print_json(found.model_dump_json(indent=2))
    else:
        print_report(found)


def _run(engine: Engine, run: str | None) -> RunInfo:
    found = find_run(engine, run)
    if found is None and run is None:
        raise InputError("the ledger has no run yet: `uptier simulate` makes one")
    if found is None:
        raise InputError(f"run {run!r} is not in the ledger: check the id")
    return found


def _report(engine: Engine, settings: Settings, info: RunInfo) -> Report:
    return report_of(engine, settings, load_catalog(_profile(settings, info)), info)


def _profile(settings: Settings, info: RunInfo) -> str:
    """The run's own profile; that of the settings where its file has gone."""
    try:
        load_catalog(info.profile)
    except ConfigurationError:
        return settings.profile
    return info.profile


def _write(
    engine: Engine, settings: Settings, info: RunInfo, out: Path | None, texts: bool
) -> Path:
    path = out or Path(f"run-{info.id}.html")
    if os.path.isdir(path) or not os.path.isdir(path.absolute().parent):
        raise InputError(f"--out {path} is no file in a folder that is there: name another")
    with err.status("reading the run"):
        page = document(
            Found(
                report=_report(engine, settings, info),
                story=run_story(engine, info.id),
                slowest=slowest(engine, info.id),
                worst=worst_scored(engine, info.id),
                catalog=load_catalog(_profile(settings, info)),
                made_at=now(),
                texts=texts,
            )
        )
    with written_whole(path, "--out") as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path
