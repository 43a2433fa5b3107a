"""The best of a decision's attempts, for when none passed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from ledger.records import StoredVerdict
from ledger.tables import TABLES

ATTEMPTS = TABLES.tables["attempt"]


def best_attempt(connection: Connection, decision_id: str) -> tuple[str, str, float | None] | None:
    """The usable attempt with the best score, of equals the surest, else the latest.

    How sure it is counts only where every equal says so, for a lane without probabilities is not
    less sure for that; and only among answers of one model, or where all are calibrated: what two
    models say of themselves cannot be compared. Else the latest is of the lane furthest up.
    """
    query = (
        select(
            ATTEMPTS.c.verdict,
            ATTEMPTS.c.lane,
            ATTEMPTS.c.fingerprint,
            ATTEMPTS.c.calibrated.is_not(None).label("calibrated"),
        )
        .where(ATTEMPTS.c.decision_id == decision_id, ATTEMPTS.c.verdict.is_not(None))
        .order_by(ATTEMPTS.c.created_at.desc(), ATTEMPTS.c.id.desc())
    )
    found = [
        (StoredVerdict.model_validate_json(row.verdict), row) for row in connection.execute(query)
    ]
    usable = [(verdict, row) for verdict, row in found if verdict.usable]
    top = max((verdict.score for verdict, _ in usable), default=0.0)
    best = [(verdict, row) for verdict, row in usable if verdict.score == top]
    if not best:
        return None
    sure = [v.p_answer for v, _ in best if v.p_answer is not None]
    said = len(sure) == len(best) and _comparable([row for _, row in best])
    verdict, row = best[sure.index(max(sure)) if said else 0]
    return verdict.answer, row.lane, verdict.p_answer


def _comparable(rows: Sequence[Any]) -> bool:
    return len({row.fingerprint for row in rows}) == 1 or all(row.calibrated for row in rows)
