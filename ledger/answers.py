"""Reads answered decisions for the quality check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Select, and_, func, select

from ledger.database import reading
from ledger.records import asked
from ledger.transitions import ANSWERED_WELL, ATTEMPTS, DECISIONS, IDS, PREFIXES
from routing.critique import CRITIC_KIND
from routing.decision import Decision, Plan, State


@dataclass(frozen=True)
class Answered:
    """A decision whose last attempt awaits its verdict; ``critic`` is the critic's answer.

    Where a panel was asked instead of a critic, ``critic_id`` is one of its members.
    """

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
    parent_id: str | None
    audits: bool
    """Whether it only checks another decision's answer."""
    deliveries: int
    """Times its check was asked for again; see ``sweeping.begin_checks``."""


def find_answered(engine: Engine, ids: Sequence[str]) -> list[Answered]:
    """Those of ``ids`` that await a verdict, in the order of submission."""
    with reading(engine) as connection:
        rows = connection.execute(_AWAITING, {"ids": list(ids)}).all()
    return [_answered(row) for row in rows]


def _awaiting() -> Select[Any]:
    """Decisions with their latest attempts, and the critics that were asked about these."""
    critics = DECISIONS.alias("critics")
    latest = and_(
        ATTEMPTS.c.decision_id == DECISIONS.c.id,
        ATTEMPTS.c.lane == DECISIONS.c.lane,
        ATTEMPTS.c.number == DECISIONS.c.tries,
    )
    return (
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
            critics.c.kind.label("critic_kind"),
        )
        .join(ATTEMPTS, latest)
        .outerjoin(PREFIXES, PREFIXES.c.id == DECISIONS.c.prefix_id)
        .outerjoin(critics, critics.c.id == DECISIONS.c.critic_id)
        .where(DECISIONS.c.id.in_(IDS), DECISIONS.c.state == State.ANSWERED.value)
        .order_by(DECISIONS.c.id)
    )


_AWAITING = _awaiting()


def _answered(row: Any) -> Answered:
    probabilities = None if row.probabilities is None else tuple(json.loads(row.probabilities))
    return Answered(
        id=row.id,
        run_id=row.run_id,
        decision=asked(row, row.system or ""),
        plan=Plan.model_validate_json(row.plan),
        hop=row.hop,
        lane=row.lane,
        attempt_id=row.attempt_id,
        fingerprint=row.fingerprint,
        raw=row.raw,
        label=row.answer_label,
        probabilities=probabilities,
        truncated=row.truncated,
        critic_id=row.critic_id,
        critic_settled=row.critic_state == State.SETTLED.value,
        critic=_critique(row),
        parent_id=row.parent_id,
        audits=row.propensity is not None,
        deliveries=row.deliveries,
    )


def _critique(row: Any) -> str | None:
    said = row.critic_kind == CRITIC_KIND and row.critic_status in ANSWERED_WELL
    return row.critic_answer if said else None
