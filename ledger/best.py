"""The best of a decision's attempts, for when none passed."""

from __future__ import annotations

from sqlalchemy import Connection, select

from ledger.records import StoredVerdict
from ledger.tables import TABLES

ATTEMPTS = TABLES.tables["attempt"]


def best_attempt(connection: Connection, decision_id: str) -> tuple[str, str, float | None] | None:
    """The usable attempt with the best score, of equals the surest, else the latest.

    How sure it is counts only where every equal says so: a lane without probabilities is not
    less sure for that.
    """
    query = (
        select(ATTEMPTS.c.verdict, ATTEMPTS.c.lane)
        .where(ATTEMPTS.c.decision_id == decision_id, ATTEMPTS.c.verdict.is_not(None))
        .order_by(ATTEMPTS.c.created_at.desc(), ATTEMPTS.c.id.desc())
    )
    found = [
        (StoredVerdict.model_validate_json(row.verdict), row.lane)
        for row in connection.execute(query)
    ]
    usable = [(verdict, lane) for verdict, lane in found if verdict.usable]
    top = max((verdict.score for verdict, _ in usable), default=0.0)
    best = [(verdict, lane) for verdict, lane in usable if verdict.score == top]
    if not best:
        return None
    sure = [v.p_answer for v, _ in best if v.p_answer is not None]
    first = sure.index(max(sure)) if len(sure) == len(best) else 0
    verdict, lane = best[first]
    return verdict.answer, lane, verdict.p_answer
