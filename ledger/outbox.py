"""Messages that are written with the change they announce, and published after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import uuid_utils
from sqlalchemy import Connection, Engine, delete, insert, select

from ledger.database import reading, writing
from ledger.tables import TABLES

OUTBOX = TABLES.tables["outbox"]
DECIDE = "uptier.decide"
CHECK = "uptier.check"
MAX_IDS = 200
"""Ids in one message; a larger batch becomes several."""


@dataclass(frozen=True)
class Message:
    """A task to be done for some decisions. Prompts never travel, only ids."""

    id: str
    task: str
    queue: str
    ids: tuple[str, ...]
    run: str = field(default="", compare=False)
    """The run of them all, for whoever watches; empty where they are of several, or it was sent
    late."""

    @property
    def arguments(self) -> tuple[object, ...]:
        """What the task is called with: its lane, where it serves one, and the ids."""
        ids = list(self.ids)
        return (self.queue, ids) if self.task == DECIDE else (ids,)

    @property
    def described(self) -> str:
        """What watchers see in the place of the arguments."""
        decisions = "1 decision" if len(self.ids) == 1 else f"{len(self.ids)} decisions"
        return f"{self.queue}: {decisions}" + (f" of run {self.run}" if self.run else "")


Send = Callable[[Message], None]


def new_id() -> str:
    """A UUIDv7 as 32 hex digits: unique, and sorted by time."""
    return uuid_utils.uuid7().hex


def only_run(rows: Iterable[Any]) -> str:
    """The run of rows with a ``run_id``, if it is one run's; else empty."""
    runs = {row.run_id for row in rows}
    return runs.pop() if len(runs) == 1 else ""


def write(
    connection: Connection, task: str, queue: str, ids: Sequence[str], now: int, run: str = ""
) -> list[Message]:
    """Add messages for ``ids`` to the open transaction; ``run`` is theirs, if it is one run's."""
    messages = [
        Message(new_id(), task, queue, tuple(ids[start : start + MAX_IDS]), run)
        for start in range(0, len(ids), MAX_IDS)
    ]
    if messages:
        connection.execute(
            insert(OUTBOX),
            [
                {
                    "id": m.id,
                    "task": m.task,
                    "queue": m.queue,
                    "ids": json.dumps(m.ids),
                    "created_at": now,
                }
                for m in messages
            ],
        )
    return messages


def publish(engine: Engine, messages: Iterable[Message], send: Send) -> int:
    """Send messages and forget those that went; what fails stays for the steward's relay.

    Returns how many went. A crash in between sends a message twice, which a claim bears.
    """
    sent = []
    try:
        for message in messages:
            send(message)
            sent.append(message.id)
    finally:
        if sent:
            with writing(engine) as connection:
                connection.execute(delete(OUTBOX).where(OUTBOX.c.id.in_(sent)))
    return len(sent)


def unsent(engine: Engine, older_than: int, limit: int = 100) -> list[Message]:
    """Messages written before ``older_than`` that have not gone out, oldest first."""
    query = (
        select(OUTBOX.c.id, OUTBOX.c.task, OUTBOX.c.queue, OUTBOX.c.ids)
        .where(OUTBOX.c.created_at < older_than)
        .order_by(OUTBOX.c.created_at)
        .limit(limit)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [Message(r.id, r.task, r.queue, tuple(json.loads(r.ids))) for r in rows]
