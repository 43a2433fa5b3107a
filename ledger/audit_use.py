"""What a run's audits came to: how often the top lane agreed, and what that cost."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, select

from ledger.labels import BROUGHT, Source
from ledger.money import dollars
from ledger.tables import TABLES

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
LABELS = TABLES.tables["label"]


class AuditUse(BaseModel):
    """Accepted answers that the top lane was asked again; they count as no decisions.

    Of those ``asked``, ``labelled`` brought an answer that counts, ``agreed`` of these the same
    one; ``overruled`` brought one that a person called wrong, before or after; ``refused`` ended
    without, as when their budget was used up.
    """

    asked: int = 0
    open: int = 0
    labelled: int = 0
    agreed: int = 0
    overruled: int = 0
    refused: int = 0
    cost_usd: float = 0.0


def audit_use(connection: Connection, run_id: str) -> AuditUse:
    """The audits of one run."""
    columns = DECISIONS.c
    query = select(columns.status, columns.cost_micros).where(
        columns.run_id == run_id, columns.propensity.is_not(None)
    )
    rows = connection.execute(query).all()
    if not rows:
        return AuditUse()
    verdicts = connection.execute(_words_on_answers(run_id)).scalars().all()
    ended = sum(1 for r in rows if r.status is not None)
    brought = sum(1 for r in rows if r.status in BROUGHT)
    return AuditUse(
        asked=len(rows),
        open=len(rows) - ended,
        labelled=len(verdicts),
        agreed=sum(1 for correct in verdicts if correct),
        overruled=brought - len(verdicts),
        refused=ended - brought,
        cost_usd=dollars(sum(r.cost_micros for r in rows)),
    )


def _words_on_answers(run_id: str) -> Any:
    """For each answer that an audit labels, whether it was right."""
    return (
        select(LABELS.c.correct)
        .join(DECISIONS, DECISIONS.c.id == LABELS.c.decision_id)
        .join(ATTEMPTS, ATTEMPTS.c.id == LABELS.c.attempt_id)
        .where(
            DECISIONS.c.run_id == run_id,
            LABELS.c.source == Source.AUDIT.value,
            ATTEMPTS.c.lane == DECISIONS.c.answer_lane,
        )
    )
