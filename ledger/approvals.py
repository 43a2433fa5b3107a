"""Actions that wait for a person, what persons said, and the audit log of all rulings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from config.errors import InputError
from ledger.clock import SECOND
from ledger.database import reading, writing
from ledger.outbox import new_id
from ledger.tables import TABLES

APPROVALS = TABLES.tables["approval"]
RULINGS = TABLES.tables["governor_ruling"]
ACTIONS = TABLES.tables["swarm_action"]


class Standing(StrEnum):
    """What has become of a request to a person."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    USED = "used"
    """Approved, and begun by the daemon; that happens once."""


OPEN = (Standing.PENDING.value, Standing.APPROVED.value)


@dataclass(frozen=True)
class Proposal:
    """An action with its arguments, as it would be carried out in an iteration of a run.

    ``evidence`` is what the place of a change looks like before and after it, where that is known.
    """

    run_id: str
    iteration: int
    action: str
    arguments: Mapping[str, Any]
    complexity: str
    effect: str
    evidence: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Stands for action and arguments; see :func:`digest_of`."""
        return digest_of(self.action, self.arguments)


@dataclass(frozen=True)
class Approval:
    """A request to a person. Times are microseconds since 1970."""

    id: str
    run_id: str
    iteration: int
    action: str
    arguments: dict[str, Any]
    digest: str
    evidence: dict[str, str]
    reason: str
    state: Standing
    note: str
    created_at: int
    expires_at: int
    decided_at: int | None
    used_at: int | None


@dataclass(frozen=True)
class Ruled:
    """A line of the audit log."""

    run_id: str
    iteration: int
    action: str
    arguments: dict[str, Any]
    ruling: str
    reason: str
    approval_id: str | None
    created_at: int


def digest_of(action: str, arguments: Mapping[str, Any]) -> str:
    """The sha256 of an action and its arguments, whatever the order of their names."""
    text = json.dumps([action, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def log_ruling(
    connection: Connection,
    proposal: Proposal | Approval,
    ruling: str,
    reason: str,
    now: int,
    approval_id: str | None = None,
) -> None:
    """Add a line to the audit log, within the transaction of what it tells."""
    connection.execute(
        insert(RULINGS).values(
            run_id=proposal.run_id, iteration=proposal.iteration, action=proposal.action,
            arguments=json.dumps(dict(proposal.arguments)), digest=proposal.digest, ruling=ruling,
            reason=reason, approval_id=approval_id, created_at=now,
        )
    )  # fmt: skip


def ask_person(
    connection: Connection, proposal: Proposal, reason: str, now: int, ttl_s: int
) -> str:
    """The id of a request for this very action: one that is open already, or a new one."""
    columns = APPROVALS.c
    open_one = select(columns.id).where(
        columns.run_id == proposal.run_id,
        columns.digest == proposal.digest,
        columns.state.in_(OPEN),
        columns.expires_at > now,
    )
    found = connection.execute(open_one).scalars().first()
    if found is not None:
        return str(found)
    id = new_id()
    connection.execute(
        insert(APPROVALS).values(
            id=id, run_id=proposal.run_id, iteration=proposal.iteration, action=proposal.action,
            arguments=json.dumps(dict(proposal.arguments)), digest=proposal.digest,
            evidence=json.dumps(dict(proposal.evidence)), reason=reason, note="",
            state=Standing.PENDING.value, created_at=now, expires_at=now + ttl_s * SECOND,
        )
    )  # fmt: skip
    return id


def decide(engine: Engine, id: str, *, approve: bool, note: str, now: int) -> Approval:
    """A person's word on a request; an approval that was not used yet can be taken back.

    Raises:
        InputError: there is no such request, or it is not open any more.
    """
    word = Standing.APPROVED if approve else Standing.REJECTED
    before = (Standing.PENDING.value,) if approve else OPEN
    columns = APPROVALS.c
    expire(engine, now)
    with writing(engine) as connection:
        changed = connection.execute(
            update(APPROVALS)
            .where(columns.id == id, columns.state.in_(before))
            .values(state=word.value, note=note, decided_at=now)
        ).rowcount
        row = connection.execute(select(*columns).where(columns.id == id)).first()
        if row is None:
            raise InputError(f"approval {id!r} is not in the ledger: see `uptier approvals list`")
        found = _approval(row)
        if not changed:
            raise InputError(
                f"approval {id!r} is {found.state.value} already: only {' and '.join(before)} ones "
                f"can be {word.value}; see `uptier approvals list`"
            )
        log_ruling(connection, found, word.value, note or "by a person", now, id)
        # The history that prompts show has to know of it.
        said = f"{word.value} by a person{': ' if note else ''}{note}"
        connection.execute(update(ACTIONS).where(ACTIONS.c.approval_id == id).values(note=said))
    return found


def rejection(engine: Engine, proposal: Proposal) -> str | None:
    """What a person said who rejected this very action in this run; ``None`` if nobody has."""
    columns = APPROVALS.c
    query = select(columns.note).where(
        columns.run_id == proposal.run_id,
        columns.digest == proposal.digest,
        columns.state == Standing.REJECTED.value,
    )
    with reading(engine) as connection:
        note: str | None = connection.execute(query).scalars().first()
    return note


def withdraw(connection: Connection, approval: Approval, reason: str, now: int) -> None:
    """Take an approval back that must not be used, within an open transaction."""
    connection.execute(
        update(APPROVALS)
        .where(APPROVALS.c.id == approval.id, APPROVALS.c.state.in_(OPEN))
        .values(state=Standing.REJECTED.value, note=reason)
    )
    log_ruling(connection, approval, "deny", reason, now, approval.id)


def expire(engine: Engine, now: int) -> int:
    """Let requests lapse whose time is over; how many."""
    columns = APPROVALS.c
    due = (columns.state.in_(OPEN)) & (columns.expires_at <= now)
    with writing(engine) as connection:
        rows = connection.execute(
            update(APPROVALS).where(due).values(state=Standing.EXPIRED.value).returning(*columns)
        ).all()
        for row in rows:
            log_ruling(connection, _approval(row), "expired", "nobody saw to it in time", now,
                       row.id)  # fmt: skip
    return len(rows)


def find_approval(engine: Engine, id: str) -> Approval:
    """One request.

    Raises:
        InputError: there is none of that id.
    """
    with reading(engine) as connection:
        row = connection.execute(select(*APPROVALS.c).where(APPROVALS.c.id == id)).first()
    if row is None:
        raise InputError(f"approval {id!r} is not in the ledger: see `uptier approvals list`")
    return _approval(row)


def approvals(
    engine: Engine, *, run_id: str | None = None, states: Sequence[Standing] | None = None
) -> list[Approval]:
    """Requests in the order in which they were made."""
    query = select(*APPROVALS.c).order_by(APPROVALS.c.created_at, APPROVALS.c.id)
    if run_id is not None:
        query = query.where(APPROVALS.c.run_id == run_id)
    if states is not None:
        query = query.where(APPROVALS.c.state.in_([state.value for state in states]))
    with reading(engine) as connection:
        return [_approval(row) for row in connection.execute(query)]


def audit_log(engine: Engine, run_id: str | None = None, last: int = 100) -> list[Ruled]:
    """The last lines of the audit log, the oldest of them first."""
    query = select(*RULINGS.c).order_by(RULINGS.c.id.desc()).limit(last)
    if run_id is not None:
        query = query.where(RULINGS.c.run_id == run_id)
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [
        Ruled(row.run_id, row.iteration, row.action, json.loads(row.arguments), row.ruling,
              row.reason, row.approval_id, row.created_at)
        for row in reversed(rows)
    ]  # fmt: skip


def _approval(row: Any) -> Approval:
    return Approval(
        id=row.id, run_id=row.run_id, iteration=row.iteration, action=row.action,
        arguments=json.loads(row.arguments), digest=row.digest, evidence=json.loads(row.evidence),
        reason=row.reason, state=Standing(row.state), note=row.note, created_at=row.created_at,
        expires_at=row.expires_at, decided_at=row.decided_at, used_at=row.used_at,
    )  # fmt: skip
