"""Decisions that follow from another one's check: its critic, its panel, its audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, update

from ledger.records import Planned, decision_row
from ledger.rulings import Followers
from ledger.transitions import DECISIONS, insert_new


def ask(
    connection: Connection, row: Any, questions: Sequence[Planned], followers: Followers, now: int
) -> None:
    """Put questions about the answer of ``row``; ``critic_id`` marks it as one that waits."""
    ids = ask_beside(connection, row.run_id, questions, followers, now)
    statement = update(DECISIONS).where(DECISIONS.c.id == row.id)
    connection.execute(statement.values(critic_id=ids[0], published_at=now, deliveries=0))


def ask_beside(
    connection: Connection,
    run_id: str,
    planned: Sequence[Planned],
    followers: Followers,
    now: int,
) -> Sequence[str]:
    """Submit decisions that follow from another one's check; their ids."""
    rows = [decision_row(run_id, one, now) for one in planned]
    submission = insert_new(connection, run_id, planned, rows, now)
    followers.messages += submission.messages
    return submission.ids
