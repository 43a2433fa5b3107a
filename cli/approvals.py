"""``uptier approvals``: what daemons may not do without a person, and the person's word on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from cli.output import out, plain, print_json
from config.settings import load_settings
from ledger import approvals as kept
from ledger.approvals import Standing
from ledger.clock import SECOND, now
from ledger.database import migrate, open_ledger

WIDE = 1000  # columns; a table takes what it needs of them

app = typer.Typer(
    help="What daemons may not do without a person.", no_args_is_help=True, rich_markup_mode=None
)

Id = Annotated[str, typer.Argument(help="id of a request")]
Reason = Annotated[str, typer.Option(help="kept with it, and told to the daemon")]
AsJson = Annotated[bool, typer.Option("--json", help="print everything as JSON")]


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="also those that are seen to")] = False,
    as_json: AsJson = False,
) -> None:
    """List the requests that wait, in the order in which they were made."""
    states = None if every else (Standing.PENDING,)
    found = _with_ledger(lambda engine: kept.approvals(engine, states=states))
    if as_json:
        print_json(json.dumps({"approvals": [asdict(one) for one in found]}, indent=2))
        return
    if not found:
        out.print("nothing was asked" if every else "nothing waits")
        return
    table = Table("id", "state", "action", "with", "because", "until", box=None)
    for one in found:
        table.add_row(one.id, one.state.value, one.action, json.dumps(one.arguments), one.reason,
                      _time(one.expires_at))  # fmt: skip
    Console(width=WIDE, highlight=False, markup=False).print(table)


@app.command()
def show(id: Id, as_json: AsJson = False) -> None:
    """Show one request with all that would be done."""
    one = _with_ledger(lambda engine: kept.find_approval(engine, id))
    if as_json:
        print_json(json.dumps(asdict(one), indent=2))
        return
    for name, value in (
        ("request", one.id),
        ("state", f"{one.state.value} {one.note}".strip()),
        ("run", f"{one.run_id}, iteration {one.iteration}"),
        ("action", one.action),
        ("because", one.reason),
        ("asked", _time(one.created_at)),
        ("until", _time(one.expires_at)),
        ("sha256", one.digest),
    ):
        out.print(f"{name:<9}{value}", markup=False)
    if "program" in one.evidence:
        out.print(f"program  {plain(one.evidence['program'])}", markup=False)
    out.print(plain(json.dumps(one.arguments, indent=2, ensure_ascii=False)), markup=False)


@app.command()
def approve(id: Id, reason: Reason = "", as_json: AsJson = False) -> None:
    """Let it happen, once and just so, when the daemon goes on."""
    _decide(id, approve=True, reason=reason, as_json=as_json)


@app.command()
def reject(id: Id, reason: Reason = "", as_json: AsJson = False) -> None:
    """Do not let it happen."""
    _decide(id, approve=False, reason=reason, as_json=as_json)


@app.command()
def log(
    run: Annotated[str | None, typer.Option(help="of this run only")] = None,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="so many lines")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the audit log: every ruling of the governor, and every word of a person."""
    found = _with_ledger(lambda engine: kept.audit_log(engine, run, last))
    if as_json:
        print_json(json.dumps({"rulings": [asdict(one) for one in found]}, indent=2))
        return
    table = Table("when", "run", "iteration", "action", "with", "ruling", "because", box=None)
    for one in found:
        table.add_row(_time(one.created_at), one.run_id[:8], str(one.iteration), one.action,
                      json.dumps(one.arguments), one.ruling, one.reason)  # fmt: skip
    Console(width=WIDE, highlight=False, markup=False).print(table)


def _decide(id: str, *, approve: bool, reason: str, as_json: bool) -> None:
    one = _with_ledger(
        lambda engine: kept.decide(engine, id, approve=approve, note=reason, now=now())
    )
    if as_json:
        print_json(json.dumps(asdict(one), indent=2))
        return
    then = "; `uptier daemon --resume` does it, if no daemon is at it" if approve else ""
    out.print(f"{one.state.value} {one.action} {json.dumps(one.arguments)}{then}", markup=False)


def _with_ledger(do: Callable[[Engine], Any]) -> Any:
    with _ledger() as engine:
        return do(engine)


@contextmanager
def _ledger() -> Iterator[Engine]:
    settings = load_settings()
    migrate(settings)
    engine = open_ledger(settings)
    try:
        kept.expire(engine, now())
        yield engine
    finally:
        engine.dispose()


def _time(micros: int) -> str:
    return datetime.fromtimestamp(micros / SECOND, UTC).isoformat(timespec="seconds")
