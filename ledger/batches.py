"""Batches in the ledger: their lines in order, and how far they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Engine, case, func, select, update

from config.catalog import Catalog
from ledger.database import insert_or_ignore, reading, writing
from ledger.money import dollars
from ledger.records import settled
from ledger.runs import RUNS, RunInfo, find_run, run_of
from ledger.tables import TABLES
from ledger.taken import Usage, usages
from ledger.transitions import ATTEMPTS, DECISIONS, OPEN, chunks
from routing.decision import Settled, State, Status

MODE = "batch"
LINES = TABLES.tables["batch_line"]
PAGE = 500
"""Lines that are read from the ledger at once."""
UNANSWERED = (Status.BUDGET, Status.EXPIRED, Status.DEAD, Status.CANCELLED)


@dataclass(frozen=True)
class Line:
    """A line of a batch's file as the ledger keeps it; one of the last two is set."""

    number: int
    custom_id: str = ""
    url: str = ""
    model: str = ""
    decision_id: str | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """A line with what became of it so far."""

    line: Line
    template: str = ""
    settled: Settled | None = None
    settled_at: int = 0
    usage: Usage = field(default_factory=Usage)


class BatchState(BaseModel):
    """How far a batch is. Money in dollars, times in seconds since 1970."""

    batch: str
    name: str
    file: str
    profile: str
    status: str
    """``in_progress``, ``completed``, ``cancelled``, or ``incomplete``: reading was cut short."""
    lines: int
    read: int
    settled: int
    open: int
    malformed: int
    unanswered: int
    by_status: dict[str, int]
    cost_usd: float
    created_at: float
    finished_at: float | None


def find_batch(engine: Engine, name: str) -> RunInfo | None:
    """The batch of that id, or the latest one of that name."""
    found = find_run(engine, name, MODE)
    return found or next(iter(_batches(engine, RUNS.c.name == name, 1)), None)


def same_batch(engine: Engine, name: str, profile: str, config: dict[str, Any]) -> RunInfo | None:
    """The latest batch of this name, profile and file, to be gone on with."""
    mine = (RUNS.c.name == name) & (RUNS.c.profile == profile)
    # One that was cancelled has other words in its configuration.
    same = [run for run in _batches(engine, mine, PAGE) if _asks(run.config) == _asks(config)]
    return same[0] if same else None


def list_batches(engine: Engine, limit: int) -> list[RunInfo]:
    """The latest batches, newest first."""
    return _batches(engine, None, limit)


def _asks(config: dict[str, Any]) -> dict[str, Any]:
    """What of a batch's configuration makes it another one; where its file lies does not."""
    return {name: value for name, value in config.items() if name != "file"}


def _batches(engine: Engine, where: Any, limit: int) -> list[RunInfo]:
    query = select(*RUNS.c).where(RUNS.c.mode == MODE)
    if where is not None:
        query = query.where(where)
    query = query.order_by(RUNS.c.created_at.desc(), RUNS.c.id.desc()).limit(limit)
    with reading(engine) as connection:
        return [run_of(row) for row in connection.execute(query)]


def mark_cancelled(engine: Engine, run: RunInfo, now: int) -> None:
    """Note that nobody wants the rest of a batch: it is not gone on with any more."""
    config = json.dumps(run.config | {"cancelled": True})
    with writing(engine) as connection:
        connection.execute(
            update(RUNS).where(RUNS.c.id == run.id).values(config=config, finished_at=now)
        )


def last_line(engine: Engine, run_id: str) -> int:
    """The number of the last line that is in the ledger; all before it are, too. 0: none is."""
    query = select(func.max(LINES.c.number)).where(LINES.c.run_id == run_id)
    with reading(engine) as connection:
        return connection.execute(query).scalar_one() or 0


def taken_ids(engine: Engine, run_id: str, custom_ids: Iterable[str]) -> dict[str, int]:
    """Which of these ids lines of the batch have already that became decisions, and which lines."""
    found: dict[str, int] = {}
    with reading(engine) as connection:
        for chunk in chunks(list(custom_ids)):
            query = select(LINES.c.custom_id, LINES.c.number).where(
                LINES.c.run_id == run_id,
                LINES.c.custom_id.in_(chunk),
                LINES.c.decision_id.is_not(None),
            )
            found.update((row.custom_id, row.number) for row in connection.execute(query))
    return found


def write_lines(engine: Engine, run_id: str, lines: Sequence[Line]) -> None:
    """Keep lines; those that are there stay as they are."""
    rows = [
        {
            "run_id": run_id,
            "number": line.number,
            "custom_id": line.custom_id,
            "url": line.url,
            "model": line.model,
            "decision_id": line.decision_id,
            "error": None if line.error is None else json.dumps(line.error),
        }
        for line in lines
    ]
    if rows:
        with writing(engine) as connection:
            connection.execute(insert_or_ignore(connection, LINES, ["run_id", "number"]), rows)


def outcomes(engine: Engine, run_id: str, catalog: Catalog | None) -> Iterator[Outcome]:
    """Every line of a batch with what became of it, in the order of its file."""
    last = 0
    while True:
        with reading(engine) as connection:
            rows = connection.execute(_page(run_id, last)).all()
        if not rows:
            return
        ended = [settled(row) for row in rows if row.state == State.SETTLED.value]
        used = usages(engine, ended, catalog)
        by_id = {one.id: one for one in ended}
        for row in rows:
            one = by_id.get(row.id)
            yield Outcome(
                line=_line(row),
                template=row.template or "",
                settled=one,
                settled_at=row.settled_at or 0,
                usage=used.get(row.id, Usage()),
            )
        last = rows[-1].number


def _page(run_id: str, after: int) -> Any:
    columns = DECISIONS.c
    return (
        select(
            *LINES.c, columns.id, columns.key, columns.kind, columns.state, columns.status,
            columns.answer, columns.answer_lane, columns.reason, columns.cost_micros,
            columns.climbs, columns.p_answer, columns.template, columns.settled_at,
        )
        .outerjoin(DECISIONS, columns.id == LINES.c.decision_id)
        .where(LINES.c.run_id == run_id, LINES.c.number > after)
        .order_by(LINES.c.number)
        .limit(PAGE)
    )  # fmt: skip


def _line(row: Any) -> Line:
    error = None if row.error is None else json.loads(row.error)
    return Line(row.number, row.custom_id, row.url, row.model, row.decision_id, error)


def open_count(engine: Engine, run_id: str) -> int:
    """How many decisions of a run are not settled; audits, for which nobody waits, do not count."""
    query = select(func.count()).where(
        DECISIONS.c.run_id == run_id,
        DECISIONS.c.state.in_(OPEN),
        DECISIONS.c.propensity.is_(None),
    )
    with reading(engine) as connection:
        return connection.execute(query).scalar_one()


def state_of(engine: Engine, run: RunInfo) -> BatchState:
    """How far a batch is."""
    with reading(engine) as connection:
        counted = connection.execute(_by_status(run.id)).all()
        spent = connection.execute(_spent(run.id)).scalar_one() or 0
        read, malformed, ended = connection.execute(_lines(run.id)).one()
    by_status = {row.status or row.state: row.n for row in counted}
    settled_ones = sum(row.n for row in counted if row.status is not None)
    still_open = sum(row.n for row in counted if row.status is None)
    lines = int(run.config.get("lines", read))
    status = "in_progress" if still_open else "completed" if read >= lines else "incomplete"
    if run.config.get("cancelled"):
        status = "cancelled"
    return BatchState(
        batch=run.id,
        name=run.name,
        file=str(run.config.get("file", "")),
        profile=run.profile,
        status=status,
        lines=lines,
        read=read,
        settled=settled_ones,
        open=still_open,
        malformed=malformed,
        unanswered=sum(int(r.empty) for r in counted if r.status in UNANSWERED),
        by_status=by_status,
        cost_usd=dollars(int(spent)),
        created_at=run.created_at / 1e6,
        finished_at=ended / 1e6 if status == "completed" and ended else None,
    )


def _by_status(run_id: str) -> Any:
    columns = DECISIONS.c
    empty = func.sum(case((func.coalesce(columns.answer, "") == "", 1), else_=0))
    return (
        select(columns.state, columns.status, func.count().label("n"), empty.label("empty"))
        .join(LINES, LINES.c.decision_id == columns.id)
        .where(LINES.c.run_id == run_id)
        .group_by(columns.state, columns.status)
        .order_by(func.count().desc())
    )


def _spent(run_id: str) -> Any:
    query = select(func.sum(ATTEMPTS.c.cost_micros)).join(
        DECISIONS, DECISIONS.c.id == ATTEMPTS.c.decision_id
    )
    return query.where(DECISIONS.c.run_id == run_id)


def _lines(run_id: str) -> Any:
    return (
        select(func.count(), func.count(LINES.c.error), func.max(DECISIONS.c.settled_at))
        .outerjoin(DECISIONS, DECISIONS.c.id == LINES.c.decision_id)
        .where(LINES.c.run_id == run_id)
    )
