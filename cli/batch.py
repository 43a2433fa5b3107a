"""``uptier batch``: a file of questions answered line by line, in OpenAI's batch format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.markup import escape
from sqlalchemy import Engine

from cli.output import bar, out, print_json, say, usd
from cli.waiting import wait_for_all
from config.broker import check_broker
from config.catalog import Catalog
from config.errors import ConfigurationError, InputError
from config.files import written_whole
from config.load import load_catalog
from config.queues import make_app
from config.settings import Settings, load_settings
from ledger import lifecycle
from ledger.batches import (
    MODE,
    BatchState,
    Line,
    find_batch,
    list_batches,
    mark_cancelled,
    outcomes,
    same_batch,
    state_of,
)
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.patience import patiently
from ledger.planning import Planner
from ledger.runs import RunInfo, find_run, finish_run, start_run
from producers.batch import Ask, result_of, submit_lines
from producers.batch_lines import BatchFile, Wanted, examine
from producers.client import Client
from producers.openai_chat import starting_on
from routing.decision import Decision, Preferences, Privacy
from workers.stack import running_stack
from workers.stack_state import StackState

app = typer.Typer(
    help="Answer a file of questions, in OpenAI's batch format.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
Batch = Annotated[str, typer.Argument(help="id of a batch, or its name", metavar="BATCH")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Failure = Callable[[], str | None]
MOST_SAID = 20
"""Malformed lines that are told of while the file is read."""


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="JSON lines", metavar="FILE.jsonl")],
    name: Annotated[str | None, typer.Option(help="of the batch; else the file's")] = None,
    model: Annotated[
        str | None, typer.Option(help="auto, a tier, a lane or a model, for every line")
    ] = None,
    private: Annotated[bool, typer.Option(help="nothing of it leaves this machine")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="until every line is answered")] = False,
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    as_json: Json = False,
) -> int:
    """Read a file into the ledger and have it answered; the same file again goes on with it."""
    settings = load_settings(profile=profile)
    privacy = Privacy.HIGH if private else Privacy.LOW
    wanted = Wanted(model, Preferences(privacy=privacy))
    if model is not None:
        starting_on(model, settings.catalog, wanted.preferences)
    if name is not None and not 0 < len(name) <= 200:
        raise InputError(f"--name must have 1 to 200 characters (got {len(name)})")
    found = examine(file)
    migrate(settings)
    engine = open_ledger(settings)
    try:
        run = _run(engine, settings, found, name or file.stem, wanted)
        _submit(engine, settings, run, found, wanted, wait)
        state = state_of(engine, find_run(engine, run.id) or run)
    finally:
        engine.dispose()
    _show(state, as_json)
    return 1 if state.malformed or state.unanswered or state.status == "cancelled" else 0


@app.command()
def status(batch: Batch, as_json: Json = False) -> None:
    """Tell how far a batch is."""
    with _opened(batch) as (engine, run):
        _show(state_of(engine, run), as_json)


@app.command()
def collect(
    batch: Batch,
    to: Annotated[Path | None, typer.Option("--out", help="results; else standard output")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="what there is already")] = False,
) -> int:
    """Write the results in the order of the file, and what failed beside them."""
    with _opened(batch) as (engine, run):
        state = state_of(engine, run)
        if not partial and state.status in ("in_progress", "incomplete"):
            left = state.lines - state.settled - state.malformed
            raise InputError(
                f"batch {run.id}: {left:,} of {state.lines:,} lines have no result yet: wait, go "
                "on with `uptier batch submit`, or add --partial"
            )
        results = (result_of(one) for one in outcomes(engine, run.id, _catalog_of(run)))
        return _write((one for one in results if one is not None), to)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many at most")] = 20,
    as_json: Json = False,
) -> None:
    """List batches, the newest first."""
    settings = load_settings()
    migrate(settings)
    engine = open_ledger(settings)
    try:
        states = [state_of(engine, run) for run in list_batches(engine, limit)]
    finally:
        engine.dispose()
    if as_json:
        print_json(json.dumps([state.model_dump() for state in states], indent=2))
        return
    for state in states:
        out.print(f"{state.batch}  {state.status:<11}  {_figures(state)}  {escape(state.name)}")


@app.command()
def cancel(batch: Batch) -> None:
    """Settle what is still open of a batch as cancelled; it is not gone on with any more."""
    with _opened(batch) as (engine, run):
        mark_cancelled(engine, run, now())
        ended = lifecycle.cancel(engine, now(), run_id=run.id)
    typer.echo(f"cancelled {len(ended.settled)} open decisions")


def _run(engine: Engine, settings: Settings, file: BatchFile, name: str, wanted: Wanted) -> RunInfo:
    """The batch that this is: one that was begun before, or a new one."""
    config = {
        "file": str(file.path.absolute()),
        "sha256": file.sha256,
        "lines": file.lines,
        "model": wanted.model,
        "privacy": wanted.preferences.privacy.value,
    }
    found = same_batch(engine, name, settings.profile, config)
    if found is not None:
        say(f"going on with batch {found.id}")
        return found
    return start_run(
        engine, mode=MODE, profile=settings.profile, now=now(), name=name, config=config,
        absent=settings.absent_lanes,
    )  # fmt: skip


def _submit(
    engine: Engine, settings: Settings, run: RunInfo, file: BatchFile, wanted: Wanted, wait: bool
) -> None:
    with _asking(engine, settings, run, wait) as (ask, failure):
        with bar() as progress:
            before = state_of(engine, run)
            watched = _Reading(progress, file.lines, before.read)

            def on_read(lines: Sequence[Line]) -> None:
                watched.read(lines)
                _require_wanted(engine, run)

            try:
                submit_lines(engine, run.id, file, settings.catalog, wanted, ask, on_read)
            except _Cancelled:
                lifecycle.cancel(engine, now(), run_id=run.id)
                say("it was cancelled while its file was read: the rest is not asked")
                return
        if wait:
            wait_for_all(engine, run.id, file.lines - before.malformed - watched.malformed, failure)
            finish_run(engine, run.id, now())


class _Cancelled(Exception):
    """Nobody wants the rest of the batch."""


def _require_wanted(engine: Engine, run: RunInfo) -> None:
    current = patiently(find_run, engine, run.id)
    if current is not None and current.config.get("cancelled"):
        raise _Cancelled


class _Reading:
    """Shows how far a file is read, and the first of its lines that are wrong."""

    def __init__(self, progress: Any, total: int, done: int) -> None:
        self._progress = progress
        self._task = progress.add_task("reading", total=total, completed=done, detail="")
        self.malformed = 0

    def read(self, lines: Sequence[Line]) -> None:
        self._progress.update(self._task, advance=len(lines))
        for line in lines:
            if line.error is None:
                continue
            self.malformed += 1
            if self.malformed <= MOST_SAID:
                say(escape(line.error["message"]))
            elif self.malformed == MOST_SAID + 1:
                say("more lines are wrong: `uptier batch collect` has them all")


@contextmanager
def _asking(
    engine: Engine, settings: Settings, run: RunInfo, wait: bool
) -> Iterator[tuple[Ask, Failure]]:
    """Who takes the decisions: a client on a stack, or the ledger alone, for a stack to come.

    Who does not wait needs no stack to be started for him; the next one that serves this ledger
    finds the messages.
    """
    if not wait and settings.broker_url is None and _is_down(settings):
        planner = Planner(settings, engine)

        def write(decisions: Sequence[Decision]) -> list[str]:
            planned = planner.plan(decisions)
            return list(lifecycle.submit(engine, run.id, planned, now()).ids)

        yield write, lambda: None
        say("no stack is up: `uptier up` has it answered, or this command with --wait")
        return
    with running_stack(settings, progress=say) as endpoint:
        if settings.broker_url is not None:
            check_broker(make_app(settings, endpoint.broker_url))
        with Client(settings, endpoint.broker_url, run, failure=endpoint.failure) as client:
            yield client.submit, endpoint.failure


def _catalog_of(run: RunInfo) -> Catalog | None:
    """The batch's profile, which tells the tiers; results can be had without it."""
    try:
        return load_catalog(run.profile)
    except ConfigurationError as error:
        say(escape(f"results name no tiers: {error}"))
        return None


def _is_down(settings: Settings) -> bool:
    state = StackState.read(settings.stack_dir)
    return state is None or not state.owner.alive()


@contextmanager
def _opened(batch: str) -> Iterator[tuple[Engine, RunInfo]]:
    settings = load_settings()
    migrate(settings)
    engine = open_ledger(settings)
    try:
        run = find_batch(engine, batch)
        if run is None:
            raise InputError(f"batch {batch!r} is not in the ledger: see `uptier batch list`")
        yield engine, run
    finally:
        engine.dispose()


def _write(results: Iterator[dict[str, Any]], to: Path | None) -> int:
    """Answers to ``to`` and failures beside it, or all to standard output; 1 if any failed."""
    if to is None:
        failed = 0
        for one in results:
            failed += one["error"] is not None
            print_json(_line(one))
        return min(failed, 1)
    beside = to.with_name(f"{to.stem}.errors{to.suffix}")
    with _replacing(to) as answers, _replacing(beside) as errors:
        counts = {True: 0, False: 0}
        for one in results:
            fails = one["error"] is not None
            counts[fails] += 1
            (errors if fails else answers).write(_line(one) + "\n")
    typer.echo(f"{counts[False]:,} results in {to}, {counts[True]:,} errors in {beside}")
    return min(counts[True], 1)


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of ``path`` once it is whole."""
    with written_whole(path, "--out") as unfinished, unfinished.open("w", encoding="utf-8") as file:
        yield file


def _line(result: dict[str, Any]) -> str:
    return json.dumps(result, ensure_ascii=False)


def _show(state: BatchState, as_json: bool) -> None:
    if as_json:
        print_json(state.model_dump_json(indent=2))
        return
    out.print(f"batch {state.batch} ({escape(state.name)}): {state.status}, {_figures(state)}")
    if state.by_status:
        out.print("  " + ", ".join(f"{name} {n:,}" for name, n in state.by_status.items()))


def _figures(state: BatchState) -> str:
    parts = [f"{state.settled:,} of {state.lines:,} lines settled"]
    if state.malformed:
        parts.append(f"{state.malformed:,} malformed")
    if state.unanswered:
        parts.append(f"{state.unanswered:,} without an answer")
    return f"{', '.join(parts)}, {usd(state.cost_usd)}"
