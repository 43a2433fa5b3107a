"""Reads what other lanes said of a decision: those tried before, and those asked as a panel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select

from ledger.database import reading
from ledger.records import StoredVerdict
from ledger.transitions import ATTEMPTS, DECISIONS, chunks
from routing.decision import State, Status

PASSED = (Status.ACCEPTED, Status.CACHED)


@dataclass(frozen=True)
class Child:
    """A question that a decision put to another lane; ``answer`` is there if it passed."""

    key: str
    settled: bool
    lane: str | None
    answer: str | None
    p_answer: float | None


@dataclass(frozen=True)
class Earlier:
    """What a lane said before, and what was said of that; a vetoed answer is empty."""

    fingerprint: str
    verdict: StoredVerdict


def find_earlier(engine: Engine, ids: Sequence[str]) -> dict[str, dict[str, Earlier]]:
    """By decision: the answers that were checked so far, by lane."""
    found: dict[str, dict[str, Earlier]] = defaultdict(dict)
    columns = (
        ATTEMPTS.c.decision_id, ATTEMPTS.c.lane, ATTEMPTS.c.fingerprint, ATTEMPTS.c.verdict
    )  # fmt: skip
    with reading(engine) as connection:
        for chunk in chunks(ids):
            query = select(*columns).where(
                ATTEMPTS.c.decision_id.in_(chunk), ATTEMPTS.c.verdict.is_not(None)
            )
            for row in connection.execute(query.order_by(ATTEMPTS.c.id)):
                verdict = StoredVerdict.model_validate_json(row.verdict)
                found[row.decision_id][row.lane] = Earlier(row.fingerprint, verdict)
    return found


def find_children(engine: Engine, ids: Sequence[str]) -> dict[str, dict[str, Child]]:
    """By decision: the questions it put to others, by their keys."""
    found: dict[str, dict[str, Child]] = defaultdict(dict)
    columns = (
        DECISIONS.c.parent_id, DECISIONS.c.key, DECISIONS.c.state, DECISIONS.c.status,
        DECISIONS.c.answer, DECISIONS.c.answer_lane, DECISIONS.c.p_answer,
    )  # fmt: skip
    with reading(engine) as connection:
        for chunk in chunks(ids):
            for row in connection.execute(select(*columns).where(DECISIONS.c.parent_id.in_(chunk))):
                found[row.parent_id][row.key] = Child(
                    key=row.key,
                    settled=row.state == State.SETTLED.value,
                    lane=row.answer_lane,
                    answer=row.answer if row.status in PASSED else None,
                    p_answer=row.p_answer,
                )
    return found
