"""Audits of answers to questions that are alike: what the cache would have said, and what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, bindparam, delete, func, select, update

from ledger.database import insert_or_ignore, reading, writing
from ledger.tables import TABLES
from routing.similar import same_answer

AUDITS = TABLES.tables["cache_audit"]


@dataclass(frozen=True)
class Audit:
    """A decision that is answered for real though the cache had ``answer`` for one alike."""

    decision_id: str
    kind: str
    embedder: str
    similarity: float
    answer: str


@dataclass(frozen=True)
class Agreement:
    """How many audits have both answers, and of how many these are the same."""

    agreed: int = 0
    audited: int = 0


def open_audits(engine: Engine, audits: Sequence[Audit], now: int) -> None:
    """Note what the cache would have said; a decision's first audit stays."""
    if not audits:
        return
    rows = [
        {"decision_id": a.decision_id, "kind": a.kind, "embedder": a.embedder,
         "similarity": a.similarity, "answer": a.answer, "created_at": now}
        for a in sorted(audits, key=lambda audit: audit.decision_id)
    ]  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert_or_ignore(connection, AUDITS, ["decision_id"]), rows)


def close_audits(engine: Engine, answers: Mapping[str, str]) -> None:
    """Compare with the accepted ``answers``, by decision. What was never accepted stays open and
    counts for nothing."""
    if not answers:
        return
    query = select(AUDITS.c.decision_id, AUDITS.c.answer).where(
        AUDITS.c.decision_id.in_(answers), AUDITS.c.agreed.is_(None)
    )
    with reading(engine) as connection:
        waiting = connection.execute(query.order_by(AUDITS.c.decision_id)).all()
    if not waiting:
        return
    found = [
        {"b_id": r.decision_id, "b_agreed": same_answer(r.answer, answers[r.decision_id])}
        for r in waiting
    ]
    statement = update(AUDITS).where(AUDITS.c.decision_id == bindparam("b_id"))
    with writing(engine) as connection:
        connection.execute(statement.values(agreed=bindparam("b_agreed")), found)


def trim_audits(engine: Engine, most: int) -> int:
    """Drop all but the newest ``most`` audits of each kind and embedder; how many left."""
    age = func.row_number().over(
        partition_by=(AUDITS.c.kind, AUDITS.c.embedder),
        order_by=(AUDITS.c.created_at.desc(), AUDITS.c.decision_id.desc()),
    )
    ranked = select(AUDITS.c.decision_id, age.label("age")).subquery()
    old = select(ranked.c.decision_id).where(ranked.c.age > most)
    with writing(engine) as connection:
        dropped = connection.execute(delete(AUDITS).where(AUDITS.c.decision_id.in_(old)))
    return dropped.rowcount


def agreement(
    engine: Engine, kind: str, embedder: str, similarity: float, window: int
) -> Agreement:
    """Of the newest ``window`` closed audits of a kind at ``similarity`` or above."""
    newest = (
        select(AUDITS.c.agreed)
        .where(
            AUDITS.c.kind == kind, AUDITS.c.embedder == embedder,
            AUDITS.c.similarity >= similarity, AUDITS.c.agreed.is_not(None),
        )
        .order_by(AUDITS.c.created_at.desc(), AUDITS.c.decision_id.desc())
        .limit(window)
        .subquery()
    )  # fmt: skip
    query = select(newest.c.agreed, func.count()).group_by(newest.c.agreed)
    with reading(engine) as connection:
        counts = {bool(agreed): count for agreed, count in connection.execute(query).all()}
    return Agreement(counts.get(True, 0), sum(counts.values()))
