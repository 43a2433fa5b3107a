"""All that the ledger knows of one decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Engine, select

from config.errors import InputError
from ledger.database import reading
from ledger.money import dollars
from ledger.records import StoredVerdict
from ledger.tables import TABLES
from routing.decision import Plan

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]


class AttemptTrail(BaseModel):
    """One attempt; times in milliseconds, money in dollars."""

    lane: str
    number: int
    model: str
    outcome: str
    raw: str
    error: str
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost_usd: float
    waiting_ms: float
    inference_ms: float
    verdict: StoredVerdict | None


class Trail(BaseModel):
    """One decision with its plan and attempts."""

    id: str
    run: str
    kind: str
    status: str | None
    answer: str | None
    answer_lane: str | None
    p_answer: float | None
    reason: str
    plan: Plan
    climbs: int
    cost_usd: float
    total_ms: float | None
    attempts: list[AttemptTrail]


def trail(engine: Engine, decision_id: str) -> Trail:
    """The trail of a decision.

    Raises:
        InputError: there is none of that id.
    """
    with reading(engine) as connection:
        row = connection.execute(select(*DECISIONS.c).where(DECISIONS.c.id == decision_id)).first()
        attempts = connection.execute(
            select(*ATTEMPTS.c)
            .where(ATTEMPTS.c.decision_id == decision_id)
            .order_by(ATTEMPTS.c.created_at, ATTEMPTS.c.id)
        ).all()
    if row is None:
        raise InputError(f"decision {decision_id!r} is not in the ledger: check the id")
    return _trail(row, attempts)


def _trail(row: Any, attempts: Sequence[Any]) -> Trail:
    total = None if row.settled_at is None else (row.settled_at - row.created_at) / 1000
    return Trail(
        id=row.id,
        run=row.run_id,
        kind=row.kind,
        status=row.status,
        answer=row.answer,
        answer_lane=row.answer_lane,
        p_answer=row.p_answer,
        reason=row.reason,
        plan=Plan.model_validate_json(row.plan),
        climbs=row.climbs,
        cost_usd=dollars(row.cost_micros),
        total_ms=total,
        attempts=[_attempt(one) for one in attempts],
    )


def _attempt(row: Any) -> AttemptTrail:
    return AttemptTrail(
        lane=row.lane,
        number=row.number,
        model=row.model,
        outcome=row.outcome,
        raw=row.raw,
        error=row.error,
        tokens_in=row.tokens_in,
        tokens_cached=row.tokens_cached,
        tokens_out=row.tokens_out,
        cost_usd=dollars(row.cost_micros),
        waiting_ms=row.waiting_us / 1000,
        inference_ms=row.inference_us / 1000,
        verdict=None if row.verdict is None else StoredVerdict.model_validate_json(row.verdict),
    )
