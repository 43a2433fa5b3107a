"""What models said to some decisions: each call with its time, its tokens and its verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select

from ledger.database import reading
from ledger.records import output_of
from ledger.tables import TABLES
from routing.decision import ChoiceOutput

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
AT_ONCE = 500
"""Ids in one query."""


@dataclass(frozen=True)
class Spoken:
    """One call of one model; ``at`` in microseconds since 1970.

    ``probabilities`` are those of a choice's labels, the calibrated ones where there are any;
    ``score`` is the verdict's, absent for a call that failed.
    """

    decision_id: str
    prompt: str
    lane: str
    model: str
    outcome: str
    raw: str
    label: str | None
    probabilities: dict[str, float] | None
    score: float | None
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    truncated: bool
    inference_us: int
    cost_micros: int
    at: int


def spoken(engine: Engine, ids: Sequence[str]) -> list[Spoken]:
    """All calls for the decisions of these ids, in the order in which they were made."""
    rows: list[Any] = []
    with reading(engine) as connection:
        for start in range(0, len(ids), AT_ONCE):
            rows += connection.execute(_query(ids[start : start + AT_ONCE])).all()
    return [_spoken(row) for row in sorted(rows, key=lambda row: (row.created_at, row.id))]


def _query(ids: Sequence[str]) -> Any:
    columns = ATTEMPTS.c
    return (
        select(
            columns.id, columns.decision_id, columns.lane, columns.model, columns.outcome,
            columns.raw, columns.label, columns.score, columns.tokens_in, columns.tokens_cached,
            columns.tokens_out, columns.truncated, columns.inference_us, columns.cost_micros,
            columns.created_at, DECISIONS.c.prompt, DECISIONS.c.output,
            func.coalesce(columns.calibrated, columns.probabilities).label("probabilities"),
        )
        .join(DECISIONS, DECISIONS.c.id == columns.decision_id)
        .where(columns.decision_id.in_(ids))
    )  # fmt: skip


def _spoken(row: Any) -> Spoken:
    return Spoken(
        decision_id=row.decision_id, prompt=row.prompt, lane=row.lane, model=row.model,
        outcome=row.outcome, raw=row.raw, label=row.label, probabilities=_by_label(row),
        score=row.score, tokens_in=row.tokens_in, tokens_cached=row.tokens_cached,
        tokens_out=row.tokens_out, truncated=row.truncated, inference_us=row.inference_us,
        cost_micros=row.cost_micros, at=row.created_at,
    )  # fmt: skip


def _by_label(row: Any) -> dict[str, float] | None:
    output = output_of(row.output)
    if row.probabilities is None or not isinstance(output, ChoiceOutput):
        return None
    values = json.loads(row.probabilities)
    return (
        dict(zip(output.labels, values, strict=True)) if len(values) == len(output.labels) else None
    )
