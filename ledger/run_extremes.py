"""Single decisions of a run that are worth a look: the slowest, and those that scored worst."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from ledger.database import reading
from ledger.records import StoredVerdict
from ledger.run_sums import ATTEMPTS, DECISIONS, of_run
from routing.decision import Preferences

FEW = 10
MOST_CHARS = 1_000
"""Of a prompt or an answer."""
PARTS = ("format", "completeness", "coherence", "critique")
MOST_ATTEMPTS = 12
"""Of one decision."""


@dataclass(frozen=True)
class Try:
    """An attempt. Times are milliseconds, money is micro-dollars."""

    lane: str
    model: str
    number: int
    outcome: str
    score: float | None
    passed: bool | None
    said: str
    error: str
    checks: dict[str, float]
    """What the quality check gave, by the name of each part."""
    issues: tuple[str, ...]
    waiting_ms: float
    inference_ms: float
    tokens_in: int
    tokens_out: int
    cost_micros: int


@dataclass(frozen=True)
class Told:
    """A decision with its attempts. ``private`` ones come without prompt and answers.

    Texts are cut at ``MOST_CHARS``; ``prompt_chars`` says how long the whole prompt is.
    """

    id: str
    key: str
    kind: str
    status: str
    answer: str
    answer_lane: str | None
    expected: str | None
    reason: str
    prompt: str
    prompt_chars: int
    private: bool
    seconds: float
    score: float | None
    cost_micros: int
    tries: tuple[Try, ...]


def slowest(engine: Engine, run_id: str, count: int = FEW) -> tuple[Told, ...]:
    """Those that took longest from being asked to their settlement, the slowest first."""
    columns = DECISIONS.c
    query = (
        select(columns.id)
        .where(of_run(run_id), columns.settled_at.is_not(None))
        .order_by((columns.settled_at - columns.created_at).desc(), columns.id)
    )
    with reading(engine) as connection:
        return _told(connection, connection.execute(query.limit(count)).scalars().all())


def worst_scored(engine: Engine, run_id: str, count: int = FEW) -> tuple[Told, ...]:
    """Those whose best judged attempt scored lowest in the quality check, the lowest first."""
    best = func.max(ATTEMPTS.c.score)
    query = (
        select(ATTEMPTS.c.decision_id)
        .join(DECISIONS, DECISIONS.c.id == ATTEMPTS.c.decision_id)
        .where(of_run(run_id), ATTEMPTS.c.score.is_not(None))
        .group_by(ATTEMPTS.c.decision_id)
        .order_by(best, ATTEMPTS.c.decision_id)
    )
    with reading(engine) as connection:
        return _told(connection, connection.execute(query.limit(count)).scalars().all())


def _told(connection: Connection, ids: Sequence[str]) -> tuple[Told, ...]:
    columns = DECISIONS.c
    query = select(
        columns.id, columns.key, columns.kind, columns.status, columns.state, columns.reason,
        columns.answer_lane, columns.expected, columns.preferences, columns.cost_micros,
        columns.created_at, columns.settled_at, func.length(columns.prompt).label("chars"),
        func.substr(columns.prompt, 1, MOST_CHARS).label("prompt"),
        func.substr(columns.answer, 1, MOST_CHARS).label("answer"),
    ).where(columns.id.in_(ids))  # fmt: skip
    rows = {row.id: row for row in connection.execute(query)}
    tries = _tries(connection, ids)
    return tuple(_one(rows[one], tries[one]) for one in ids if one in rows)


def _tries(connection: Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
    columns = ATTEMPTS.c
    place = func.row_number().over(partition_by=columns.decision_id, order_by=columns.id)
    numbered = select(
        columns.id, columns.decision_id, columns.lane, columns.model, columns.number,
        columns.outcome, columns.score, columns.passed, columns.verdict, columns.waiting_us,
        columns.inference_us, columns.tokens_in, columns.tokens_out, columns.cost_micros,
        func.substr(columns.raw, 1, MOST_CHARS).label("raw"),
        func.substr(columns.error, 1, MOST_CHARS).label("error"),
        place.label("place"),
    ).where(columns.decision_id.in_(ids)).subquery()  # fmt: skip
    query = select(numbered).where(numbered.c.place <= MOST_ATTEMPTS).order_by(numbered.c.id)
    found: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.decision_id].append(row)
    return found


def _one(row: Any, tries: Sequence[Any]) -> Told:
    private = Preferences.model_validate_json(row.preferences).privacy.stays_home
    made = tuple(_try(one, private) for one in tries)
    return Told(
        id=row.id,
        key=row.key,
        kind=row.kind,
        status=row.status or row.state,
        answer="" if private else row.answer or "",
        answer_lane=row.answer_lane,
        expected=None if private else row.expected,
        reason="" if private else row.reason,
        prompt="" if private else row.prompt,
        prompt_chars=row.chars,
        private=private,
        seconds=((row.settled_at or row.created_at) - row.created_at) / 1_000_000,
        score=max((one.score for one in made if one.score is not None), default=None),
        cost_micros=row.cost_micros,
        tries=made,
    )


def _try(row: Any, private: bool) -> Try:
    verdict = None if row.verdict is None else StoredVerdict.model_validate_json(row.verdict)
    return Try(
        lane=row.lane,
        model=row.model,
        number=row.number,
        outcome=row.outcome,
        score=row.score,
        passed=row.passed,
        said="" if private else row.raw,
        error="" if private else row.error,
        checks=_checks(verdict),
        issues=() if private or verdict is None else (*verdict.vetoes, *verdict.issues),
        waiting_ms=row.waiting_us / 1000,
        inference_ms=row.inference_us / 1000,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        cost_micros=row.cost_micros,
    )


def _checks(verdict: StoredVerdict | None) -> dict[str, float]:
    scores = {} if verdict is None else {name: getattr(verdict, name) for name in PARTS}
    return {name: score for name, score in scores.items() if score is not None}
