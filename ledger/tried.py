"""What the lanes of a run were tried on, and whether they were right: rows for an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from ledger.clock import SECOND
from ledger.database import reading
from ledger.labels import BROUGHT, Source
from ledger.money import dollars
from ledger.records import StoredVerdict, output_of
from ledger.tables import TABLES
from routing.attempts import Tried
from routing.audit import agrees
from routing.offpolicy import Seen

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
LABELS = TABLES.tables["label"]
TRUST = [None, *Source]
"""Whose word counts, the most trusted last; first nobody's."""


def tried(engine: Engine, run_id: str) -> tuple[list[Seen], bool]:
    """The decisions of a run with the attempts of which it is known whether they were right.

    The asker's ``expected`` says so, or a label: a person's, or the word of the top lane, to which
    the decision climbed or was audited, and which is then right by definition, unless a person
    overruled it. An audit's call counts as the top lane's attempt at the audited decision, which
    stands for all those that chance left out. Attempts of which nothing is known are left out, and
    so are the answers of an adapter that the asker chose.

    A lane's last answered attempt counts, with what all its attempts cost: dollars, or seconds of
    inference if no attempt of the run cost money; the second value says whether it is dollars.
    Confidence is the probability of the answer. Critics and panels are no decisions of their own.
    """
    with reading(engine) as connection:
        found = connection.execute(_attempts_and_labels(run_id)).all()
    upheld = {row.id for row in found if row.source == Source.AUDIT}
    rows = _most_trusted(found)
    paid = any(row.cost_micros for row in rows)
    by_decision: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_decision[row.parent_id or row.id].append(row)
    return [_seen(own, paid, upheld) for own in by_decision.values()], paid


def _attempts_and_labels(run_id: str) -> Any:
    """A row for each label of an attempt, or one where it has none."""
    return (
        select(
            DECISIONS.c.id, DECISIONS.c.parent_id, DECISIONS.c.propensity, DECISIONS.c.kind,
            DECISIONS.c.status, DECISIONS.c.expected, DECISIONS.c.output,
            ATTEMPTS.c.id.label("attempt"), ATTEMPTS.c.lane, ATTEMPTS.c.outcome,
            ATTEMPTS.c.verdict, ATTEMPTS.c.cost_micros, ATTEMPTS.c.inference_us,
            LABELS.c.correct, LABELS.c.source,
        )
        .join(ATTEMPTS, ATTEMPTS.c.decision_id == DECISIONS.c.id)
        .outerjoin(LABELS, LABELS.c.attempt_id == ATTEMPTS.c.id)
        .where(_counts(run_id))
        .order_by(DECISIONS.c.id, ATTEMPTS.c.id)
    )  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A judged attempt of a run; ``p`` is the probability of its answer where it has one.

    ``sound`` says that it passed the rubric, ``audits`` that it only checked another answer.
    """

    decision_id: str
    kind: str
    lane: str
    model: str
    fingerprint: str
    template: str
    p: float | None
    sound: bool
    audits: bool


def made(engine: Engine, run_id: str) -> list[Made]:
    """All judged attempts of a run, in their order: those that :func:`tried` looks at, labelled or
    not."""
    query = (
        select(
            DECISIONS.c.id, DECISIONS.c.kind, DECISIONS.c.template, DECISIONS.c.propensity,
            ATTEMPTS.c.lane, ATTEMPTS.c.model, ATTEMPTS.c.fingerprint, ATTEMPTS.c.verdict,
        )
        .join(ATTEMPTS, ATTEMPTS.c.decision_id == DECISIONS.c.id)
        .where(_counts(run_id), ATTEMPTS.c.verdict.is_not(None))
        .order_by(ATTEMPTS.c.id)
    )  # fmt: skip
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [_made(row) for row in rows]


def _made(row: Any) -> Made:
    verdict = StoredVerdict.model_validate_json(row.verdict)
    return Made(
        row.id, row.kind, row.lane, row.model, row.fingerprint, row.template, verdict.p_answer,
        verdict.is_sound, row.propensity is not None,
    )  # fmt: skip


def _counts(run_id: str) -> Any:
    own = DECISIONS.c.parent_id.is_(None) | DECISIONS.c.propensity.is_not(None)
    chosen = DECISIONS.c.preferences.like('%"adapter"%')
    return (DECISIONS.c.run_id == run_id) & own & ~chosen


def _most_trusted(rows: Sequence[Any]) -> list[Any]:
    """One row an attempt: that with the label that counts."""
    best: dict[str, Any] = {}
    for row in rows:
        known = best.get(row.attempt)
        if known is None or TRUST.index(row.source) > TRUST.index(known.source):
            best[row.attempt] = row
    return list(best.values())


def _seen(rows: Sequence[Any], paid: bool, upheld: set[str]) -> Seen:
    """One decision by its attempts; ``upheld`` are those whose audit's word still counts."""
    audits = [row for row in rows if row.propensity is not None]
    # Whose word labels the others is right by definition: the audit's, or the last climbed to.
    judges = {row.lane: row.parent_id in upheld or row.status not in BROUGHT for row in audits}
    if any(row.source == Source.TOP for row in rows):
        judges[max(rows, key=lambda row: row.attempt).lane] = True
    lanes: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        lanes[row.lane].append(row)
    tried_by = {lane: _tried(own, paid, judges.get(lane)) for lane, own in lanes.items()}
    found = {lane: one for lane, one in tried_by.items() if one is not None}
    return Seen(rows[0].kind, found, audits[0].propensity if audits else 1.0)


def _tried(rows: Sequence[Any], paid: bool, judge: bool | None) -> Tried | None:
    """A lane's attempt; ``None`` if it has none, or nobody knows whether it was right.

    ``judge`` says whether it was where no label does: whose word labels others has none itself.
    """
    judged = [row for row in rows if row.outcome == "answered" and row.verdict is not None]
    if not judged:
        return None
    verdict = StoredVerdict.model_validate_json(judged[-1].verdict)
    right = _right(judged[-1], verdict, judge)
    if right is None:
        return None
    cost = (
        dollars(sum(row.cost_micros for row in rows))
        if paid
        else sum(row.inference_us for row in rows) / SECOND
    )
    return Tried(verdict.answer, verdict.p_answer, cost, right)


def _right(row: Any, verdict: StoredVerdict, judge: bool | None) -> bool | None:
    if not verdict.usable:
        return False
    if row.expected is not None:
        same = agrees(output_of(row.output), verdict.answer, row.expected)
        return verdict.answer == row.expected if same is None else same
    if row.source is not None:
        return bool(row.correct)
    return judge
