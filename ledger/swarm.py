"""What daemons do, iteration by iteration: an intent before each action, its outcome after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from config.swarm import Verdict
from ledger.approvals import (
    APPROVALS,
    Approval,
    Proposal,
    Standing,
    ask_person,
    digest_of,
    log_ruling,
    withdraw,
)
from ledger.database import reading, writing
from ledger.memories import NewMemory, write
from ledger.outbox import new_id
from ledger.runs import RUNS, RunInfo, find_run
from ledger.tables import TABLES

ACTIONS = TABLES.tables["swarm_action"]
MODE = "daemon"
CHILD_MODE = "daemon-child"
"""Of a daemon that a daemon started."""


class State(StrEnum):
    """Where an iteration's action stands."""

    INTENT = "intent"
    """It is being done, or was when the daemon ended."""
    DONE = "done"
    FAILED = "failed"
    WAITING = "waiting"
    """For a person; the iteration itself is over."""
    DENIED = "denied"
    UNKNOWN = "unknown"
    """The daemon ended in the midst of it, and nobody knows whether it took effect."""


@dataclass(frozen=True)
class Step:
    """An iteration's action. Times are microseconds since 1970."""

    id: str
    iteration: int
    action: str
    arguments: dict[str, Any]
    complexity: str
    effect: str
    state: State
    ruling: str
    output: str
    note: str
    evidence: dict[str, str]
    approval_id: str | None
    created_at: int
    finished_at: int | None


@dataclass(frozen=True)
class Outcome:
    """What came of an action; ``memory`` is noted in the same transaction."""

    state: State
    output: str
    note: str
    memory: NewMemory | None = None


def begin(
    engine: Engine, proposal: Proposal, verdict: Verdict, reason: str, ttl_s: int, now: int
) -> Step:
    """Write the ruling and what follows from it: an intent, a request to a person, or a denial.

    An iteration that has its action already keeps it, and that comes back.
    """
    with writing(engine) as connection:
        known = _find(connection, proposal.run_id, proposal.iteration)
        if known is not None:
            return known
        approval = None
        if verdict is Verdict.ESCALATE:
            approval = ask_person(connection, proposal, reason, now, ttl_s)
        log_ruling(connection, proposal, verdict.value, reason, now, approval)
        state = {
            Verdict.ALLOW: State.INTENT, Verdict.ESCALATE: State.WAITING, Verdict.DENY: State.DENIED
        }[verdict]  # fmt: skip
        note = {State.WAITING: f"waits for a person: {reason}", State.DENIED: f"denied: {reason}"}
        return _insert(connection, proposal, state, note.get(state, ""), approval, verdict, now)


def begin_approved(engine: Engine, approval: Approval, proposal: Proposal, now: int) -> Step | None:
    """Use an approval up and write the intent, both or neither; ``None`` where it may not be used.

    Its action and arguments must be those that were approved, and its time must not be over.
    """
    same = digest_of(approval.action, approval.arguments) == approval.digest == proposal.digest
    columns = APPROVALS.c
    with writing(engine) as connection:
        known = _find(connection, proposal.run_id, proposal.iteration)
        if known is not None:
            return known if known.approval_id == approval.id else None
        if not same:
            withdraw(connection, approval, "its arguments are not those that were approved", now)
            return None
        used = (
            update(APPROVALS)
            .where(
                columns.id == approval.id,
                columns.state == Standing.APPROVED.value,
                columns.digest == proposal.digest,
                columns.expires_at > now,
            )
            .values(state=Standing.USED.value, used_at=now)
        )
        if connection.execute(used).rowcount != 1:
            return None
        log_ruling(connection, proposal, Standing.USED.value, "approved by a person", now,
                   approval.id)  # fmt: skip
        return _insert(connection, proposal, State.INTENT, "", approval.id, Verdict.ESCALATE, now)


def finish(engine: Engine, step_id: str, outcome: Outcome, now: int) -> None:
    """Write what came of an intent, and the memory it brought; nothing if that is done already."""
    statement = (
        update(ACTIONS)
        .where(ACTIONS.c.id == step_id, ACTIONS.c.state == State.INTENT.value)
        .values(
            state=outcome.state.value, output=outcome.output, note=outcome.note, finished_at=now
        )
    )
    with writing(engine) as connection:
        if connection.execute(statement).rowcount == 1 and outcome.memory is not None:
            write(connection, outcome.memory, now)


def deny_begun(engine: Engine, step_id: str, proposal: Proposal, reason: str, now: int) -> None:
    """Give up an intent that the governor denies by now, and log that."""
    statement = (
        update(ACTIONS)
        .where(ACTIONS.c.id == step_id, ACTIONS.c.state == State.INTENT.value)
        .values(state=State.DENIED.value, note=f"denied: {reason}", finished_at=now)
    )
    with writing(engine) as connection:
        if connection.execute(statement).rowcount == 1:
            log_ruling(connection, proposal, Verdict.DENY.value, reason, now)


def deny_approved(engine: Engine, approval: Approval, reason: str, now: int) -> None:
    """Take back an approval of what the governor denies by now."""
    with writing(engine) as connection:
        withdraw(connection, approval, reason, now)


def annotate(engine: Engine, step_id: str, note: str) -> None:
    """Give a step a better line for the history."""
    with writing(engine) as connection:
        connection.execute(update(ACTIONS).where(ACTIONS.c.id == step_id).values(note=note))


def pass_over(engine: Engine, proposal: Proposal, note: str, now: int) -> Step:
    """Note an iteration that came to no action, as where no usable answer was had."""
    with writing(engine) as connection:
        known = _find(connection, proposal.run_id, proposal.iteration)
        if known is not None:
            return known
        return _insert(connection, proposal, State.FAILED, note, None, None, now)


def steps(engine: Engine, run_id: str) -> list[Step]:
    """The actions of a run in the order of its iterations."""
    query = select(*ACTIONS.c).where(ACTIONS.c.run_id == run_id).order_by(ACTIONS.c.iteration)
    with reading(engine) as connection:
        return [_step(row) for row in connection.execute(query)]


def find_daemon(engine: Engine, run_id: str | None = None) -> RunInfo | None:
    """The daemon's run of that id, or the last one; those that daemons started do not count."""
    return find_run(engine, run_id, MODE)


def update_config(engine: Engine, run: RunInfo, config: Mapping[str, Any]) -> None:
    """Give a run that goes on other settings."""
    with writing(engine) as connection:
        connection.execute(
            update(RUNS).where(RUNS.c.id == run.id).values(config=json.dumps(dict(config)))
        )


def _find(connection: Connection, run_id: str, iteration: int) -> Step | None:
    columns = ACTIONS.c
    query = select(*columns).where(columns.run_id == run_id, columns.iteration == iteration)
    row = connection.execute(query).first()
    return None if row is None else _step(row)


def _insert(
    connection: Connection,
    proposal: Proposal,
    state: State,
    note: str,
    approval_id: str | None,
    verdict: Verdict | None,
    now: int,
) -> Step:
    row = {
        "id": new_id(), "run_id": proposal.run_id, "iteration": proposal.iteration,
        "action": proposal.action, "arguments": json.dumps(dict(proposal.arguments)),
        "digest": proposal.digest, "complexity": proposal.complexity, "effect": proposal.effect,
        "state": state.value, "ruling": "" if verdict is None else verdict.value, "output": "",
        "note": note, "evidence": json.dumps(dict(proposal.evidence)), "approval_id": approval_id,
        "created_at": now, "finished_at": None if state is State.INTENT else now,
    }  # fmt: skip
    found = connection.execute(insert(ACTIONS).values(**row).returning(*ACTIONS.c)).one()
    return _step(found)


def _step(row: Any) -> Step:
    return Step(
        id=row.id, iteration=row.iteration, action=row.action, arguments=json.loads(row.arguments),
        complexity=row.complexity, effect=row.effect, state=State(row.state), ruling=row.ruling,
        output=row.output, note=row.note, evidence=json.loads(row.evidence),
        approval_id=row.approval_id, created_at=row.created_at, finished_at=row.finished_at,
    )  # fmt: skip
