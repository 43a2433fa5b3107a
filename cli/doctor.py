"""``uptier doctor``: what is here, what is missing, and what mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cli.output import err, out, print_json
from config.deployment import check_secrets
from config.settings import load_settings
from workers.doctor.examination import examine
from workers.doctor.finding import Finding, State, Tell, worst

STYLES = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}


def doctor(
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="hash every byte of the weights")] = False,
    deploy: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="look at the secrets of docker-compose.yml alone"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> int:
    """Look at machine, software, weights, keys, broker, ledger and clock; exit 1 on a failure."""
    if deploy is not None:
        lines = check_secrets(deploy.expanduser())
        print_json(json.dumps(lines, indent=2)) if as_json else typer.echo("\n".join(lines))
        return 0
    settings = load_settings(profile=profile)
    with _progress(shown=deep and err.is_terminal) as tell:
        found = list(examine(settings, deep=deep, tell=tell))
    state = worst(found)
    if as_json:
        report = {
            "state": state,
            "profile": settings.profile,
            "findings": [asdict(f) for f in found],
        }
        print_json(json.dumps(report, indent=2))
    else:
        _show(found)
    return 1 if state is State.FAIL else 0


def _show(found: list[Finding]) -> None:
    for finding in found:
        out.print(f"{finding.state.value:<5}", style=STYLES[finding.state], end="")
        out.print(f"{finding.name}: {finding.said}", markup=False)
        if finding.mend:
            out.print(f"     → {finding.mend}", markup=False)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Tell]:
    """A bar for each file that is hashed, on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not shown) as progress:
        tasks = {}

        def tell(name: str, done: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=size)
            progress.update(tasks[name], completed=done)

        yield tell
