"""Reads answered decisions for the quality check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, and_, func, select

from ledger.database import reading
from ledger.records import asked
from ledger.transitions import ANSWERED_WELL, ATTEMPTS, DECISIONS, PREFIXES
from routing.decision import Decision, Plan, State


@dataclass(frozen=True)
class Answered:
    """A decision whose last attempt awaits its verdict; ``critic`` is the critic's answer."""

    id: str
    run_id: str
    decision: Decision
    plan: Plan
    hop: int
    lane: str
    attempt_id: str
    fingerprint: str
    raw: str
    label: str | None
    probabilities: tuple[float, ...] | None
    """Calibrated ones where the attempt has them, else the model's own."""
    truncated: bool
    critic_id: str | None
    critic_settled: bool
    critic: str | None
    deliveries: int
    """Times its check was asked for again; see ``sweeping.begin_checks``."""


def find_answered(engine: Engine, ids: Sequence[str]) -> list[Answered]:
    """Those of ``ids`` that await a verdict, in the order of submission."""
    critics = DECISIONS.alias("critics")
    latest = and_(
        ATTEMPTS.c.decision_id == DECISIONS.c.id,
        ATTEMPTS.c.lane == DECISIONS.c.lane,
        ATTEMPTS.c.number == DECISIONS.c.tries,
    )
    query = (
        select(
            *DECISIONS.c,
            PREFIXES.c.text.label("system"),
            ATTEMPTS.c.id.label("attempt_id"),
            ATTEMPTS.c.fingerprint,
            ATTEMPTS.c.raw,
            ATTEMPTS.c.label.label("answer_label"),
            func.coalesce(ATTEMPTS.c.calibrated, ATTEMPTS.c.probabilities).label("probabilities"),
            ATTEMPTS.c.truncated,
            critics.c.state.label("critic_state"),
            critics.c.status.label("critic_status"),
            critics.c.answer.label("critic_answer"),
        )
        .join(ATTEMPTS, latest)
        .outerjoin(PREFIXES, PREFIXES.c.id == DECISIONS.c.prefix_id)
        .outerjoin(critics, critics.c.id == DECISIONS.c.critic_id)
        .where(DECISIONS.c.id.in_(ids), DECISIONS.c.state == State.ANSWERED.value)
        .order_by(DECISIONS.c.id)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [
        Answered(
            id=r.id,
            run_id=r.run_id,
            decision=asked(r, r.system or ""),
            plan=Plan.model_validate_json(r.plan),
            hop=r.hop,
            lane=r.lane,
            attempt_id=r.attempt_id,
            fingerprint=r.fingerprint,
            raw=r.raw,
            label=r.answer_label,
            probabilities=None if r.probabilities is None else tuple(json.loads(r.probabilities)),
            truncated=r.truncated,
            critic_id=r.critic_id,
            critic_settled=r.critic_state == State.SETTLED.value,
            critic=r.critic_answer if r.critic_status in ANSWERED_WELL else None,
            deliveries=r.deliveries,
        )
        for r in rows
    ]
