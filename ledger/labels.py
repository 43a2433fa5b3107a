"""Whether answers were right: labels of attempts, and the labelled history that is read of them.

A label says that an attempt's answer was right or not, who says so, and with which probability the
attempt came to be labelled. What a decision's asker holds to be right (``expected``) labels its
attempts without a row of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from ledger.database import insert_or_ignore, reading, writing
from ledger.outbox import new_id
from ledger.records import StoredVerdict, output_of
from ledger.tables import TABLES
from routing.audit import agrees
from routing.decision import Status, TextOutput

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
LABELS = TABLES.tables["label"]
MOST = 20_000
"""Labelled attempts that are read, the newest."""
SCANNED = 200_000
"""Attempts among which they are looked for, the newest."""
BROUGHT = (Status.ACCEPTED, Status.DEGRADED)
"""How an audit settles that has an answer; any other way it brought none."""


class Source(StrEnum):
    """Who says whether an answer was right, the most trusted last."""

    AUDIT = "audit"
    """The top lane, asked for that alone."""
    TOP = "top"
    """The top lane, to which the decision climbed."""
    EXPECTED = "expected"
    """The asker's own rules."""
    PERSON = "person"


TRUST = list(Source)


Truth = tuple[str, Any, str, float]
"""A decision's id, the row of that which was asked of the top lane, its answer, the propensity."""


@dataclass(frozen=True)
class Labelled:
    """A judged attempt of which it is known whether its answer was right.

    ``sound`` says that it passed the rubric, ``passed`` that it was accepted. ``p`` is the
    calibrated probability of its answer; ``propensity`` is ``None`` where nobody knows it.
    """

    attempt_id: str
    kind: str
    lane: str
    model: str
    fingerprint: str
    template: str
    answer: str
    p: float | None
    sound: bool
    passed: bool
    correct: bool
    source: Source
    propensity: float | None
    created_at: int


def from_audits(connection: Connection, endings: Sequence[tuple[Any, Any]], now: int) -> None:
    """Label the parents of audits by what they brought; (row, settlement) each.

    An answer that was not sure enough to be accepted labels as well, unless it was vetoed: if only
    sure ones did, the chance to be labelled would be less than the propensity says. One that a
    person has already called wrong labels nothing; and what the person labelled before the audit's
    end has been chosen by lot all the same.
    """
    found = [
        (row.parent_id, row, ending.answer, row.propensity)
        for row, ending in endings
        if row.propensity is not None and ending.status in BROUGHT
    ]
    if not found:
        return
    parents = [parent for parent, *_ in found]
    _hold(connection, parents)
    words = _words_of_persons(connection, parents)
    _note_draws(connection, [one for one in found if one[0] in words])
    standing = [one for one in found if not _contradicts(one, words.get(one[0], ()))]
    _write(connection, standing, Source.AUDIT, now)


def from_top(connection: Connection, answers: Sequence[tuple[Any, str]], now: int) -> None:
    """Label what was tried below by answers of the top lane, to which it had to climb.

    A (row, answer) each.
    """
    found = [
        (row.id, row, answer, 1.0)
        for row, answer in answers
        if row.hop > 0 and row.propensity is None and row.expected is None
    ]
    _write(connection, found, Source.TOP, now)


def by_person(engine: Engine, decision: Any, truth: str, *, right: bool, now: int) -> int:
    """Label the attempts of a decision; how many there are.

    With ``right``, ``truth`` is the right answer, and whatever else was answered was wrong. Else
    it is a wrong one, and nothing is known of the others. An earlier word of a person's is taken
    back, and so are labels by an answer of the top lane that is wrong by this one. Where an attempt
    was chosen by lot before, a person's label keeps its probability.
    """
    output = output_of(decision.output)
    with writing(engine) as connection:
        _hold(connection, [decision.id])
        rows = []
        for attempt, verdict in _judged(connection, [decision.id]):
            same = verdict.answer == truth
            correct = (same or agrees(output, verdict.answer, truth)) if right else None
            if same and not right:
                correct = False
            if correct is not None:
                chance = _propensity(connection, attempt.id)
                rows.append(_row(attempt, correct, Source.PERSON, chance, now))
        gone = [Source.PERSON, *_refuted(connection, decision, truth, right)]
        taken = (LABELS.c.decision_id == decision.id) & LABELS.c.source.in_([s.value for s in gone])
        connection.execute(delete(LABELS).where(taken))
        if rows:
            connection.execute(insert(LABELS), rows)
    return len(rows)


def find_decision(engine: Engine, run_id: str, key: str) -> Any | None:
    """The row of a run's decision by its key, or by its id; ``None`` if there is none."""
    named = (DECISIONS.c.key == key) | (DECISIONS.c.id == key)
    query = select(*DECISIONS.c).where(DECISIONS.c.run_id == run_id, named)
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return next((row for row in rows if row.key == key), rows[0] if rows else None)


def labelled(
    engine: Engine, *, kind: str | None = None, after: int = 0, among: int = SCANNED
) -> list[Labelled]:
    """The labelled history in the order of its attempts, one entry an attempt.

    Where several label an attempt the most trusted one counts, and the answers of an adapter that
    the asker chose are left out. ``after`` is a time in microseconds; of the newest ``among``
    attempts at most :data:`MOST` come back.
    """
    with reading(engine) as connection:
        floor = connection.execute(_before_the_newest(among)).scalar()
        rows = connection.execute(_known(kind, after, floor or "")).all()
    best: dict[str, Labelled] = {}
    for row in reversed(rows):
        for one in _labels_of(row):
            known = best.get(one.attempt_id)
            if known is None or TRUST.index(one.source) > TRUST.index(known.source):
                best[one.attempt_id] = one
    return list(best.values())


def _before_the_newest(count: int) -> Any:
    return select(ATTEMPTS.c.id).order_by(ATTEMPTS.c.id.desc()).offset(count).limit(1)


def _known(kind: str | None, after: int, floor: str) -> Any:
    """Attempts above ``floor`` with a label each, or whose right answer the asker knows."""
    query = (
        select(
            ATTEMPTS.c.id, ATTEMPTS.c.lane, ATTEMPTS.c.model, ATTEMPTS.c.fingerprint,
            ATTEMPTS.c.verdict, ATTEMPTS.c.created_at, DECISIONS.c.kind, DECISIONS.c.template,
            DECISIONS.c.output, DECISIONS.c.expected, LABELS.c.correct, LABELS.c.source,
            LABELS.c.propensity,
        )
        .join(DECISIONS, DECISIONS.c.id == ATTEMPTS.c.decision_id)
        .outerjoin(LABELS, LABELS.c.attempt_id == ATTEMPTS.c.id)
        .where(
            ATTEMPTS.c.verdict.is_not(None), ATTEMPTS.c.created_at > after, ATTEMPTS.c.id > floor,
            LABELS.c.id.is_not(None) | DECISIONS.c.expected.is_not(None),
            DECISIONS.c.propensity.is_(None), DECISIONS.c.preferences.not_like('%"adapter"%'),
        )
        .order_by(ATTEMPTS.c.id.desc(), LABELS.c.source.desc())  # the end cuts off no person's word
        .limit(MOST)
    )  # fmt: skip
    return query if kind is None else query.where(DECISIONS.c.kind == kind)


def _labels_of(row: Any) -> list[Labelled]:
    verdict = StoredVerdict.model_validate_json(row.verdict)
    found = []
    if row.source is not None:
        found.append((bool(row.correct), Source(row.source), row.propensity))
    if row.expected is not None:
        right = agrees(output_of(row.output), verdict.answer, row.expected)
        if right is not None:
            found.append((right, Source.EXPECTED, 1.0))
    return [
        Labelled(
            row.id, row.kind, row.lane, row.model, row.fingerprint, row.template, verdict.answer,
            verdict.p_answer, verdict.is_sound, verdict.passed, correct, source, propensity,
            row.created_at,
        )
        for correct, source, propensity in found
    ]  # fmt: skip


def _hold(connection: Connection, ids: Sequence[str]) -> None:
    """Keep a person's word and an audit's end on one decision from passing each other unseen."""
    mine = select(DECISIONS.c.id).where(DECISIONS.c.id.in_(ids)).order_by(DECISIONS.c.id)
    connection.execute(mine.with_for_update())


def _words_of_persons(
    connection: Connection, ids: Sequence[str]
) -> dict[str, list[tuple[str, bool]]]:
    """By decision the answers of its attempts that a person called right or wrong."""
    query = (
        select(LABELS.c.decision_id, LABELS.c.correct, ATTEMPTS.c.verdict)
        .join(ATTEMPTS, ATTEMPTS.c.id == LABELS.c.attempt_id)
        .where(LABELS.c.decision_id.in_(ids), LABELS.c.source == Source.PERSON.value)
    )
    words: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for row in connection.execute(query):
        answer = StoredVerdict.model_validate_json(row.verdict).answer
        words[row.decision_id].append((answer, bool(row.correct)))
    return words


def _note_draws(connection: Connection, truths: Sequence[Truth]) -> None:
    """Give persons' labels the probability of the draw that their attempts had been through."""
    for decision_id, asked, _, propensity in truths:
        drawn = (LABELS.c.decision_id == decision_id) & (LABELS.c.lane != asked.lane)
        unknown = (LABELS.c.source == Source.PERSON.value) & LABELS.c.propensity.is_(None)
        connection.execute(update(LABELS).where(drawn, unknown).values(propensity=propensity))


def _contradicts(one: Truth, words: Sequence[tuple[str, bool]]) -> bool:
    """Whether an answer of the top lane is wrong by what a person said of others."""
    _, asked, truth, _ = one
    output = output_of(asked.output)
    return any(agrees(output, answer, truth) is not correct for answer, correct in words)


def _write(
    connection: Connection,
    truths: Sequence[Truth],
    source: Source,
    now: int,
) -> None:
    """Label the attempts of decisions."""
    known = {
        decision_id: (asked.lane, output, truth, propensity)
        for decision_id, asked, truth, propensity in truths
        if not isinstance(output := output_of(asked.output), TextOutput)
    }
    rows = []
    for attempt, verdict in _judged(connection, list(known)):
        lane, output, truth, propensity = known[attempt.decision_id]
        right = agrees(output, verdict.answer, truth)
        if attempt.lane != lane and right is not None:
            rows.append(_row(attempt, right, source, propensity, now))
    if rows:
        unique = ["attempt_id", "source"]
        connection.execute(insert_or_ignore(connection, LABELS, unique), rows)


def _judged(connection: Connection, ids: Sequence[str]) -> list[tuple[Any, StoredVerdict]]:
    if not ids:
        return []
    query = (
        select(ATTEMPTS.c.id, ATTEMPTS.c.decision_id, ATTEMPTS.c.lane, ATTEMPTS.c.verdict)
        .where(ATTEMPTS.c.decision_id.in_(ids), ATTEMPTS.c.verdict.is_not(None))
        .order_by(ATTEMPTS.c.id)
    )
    rows = connection.execute(query).all()
    return [(row, StoredVerdict.model_validate_json(row.verdict)) for row in rows]


def _refuted(connection: Connection, decision: Any, truth: str, right: bool) -> list[Source]:
    """Whose labels of a decision rest on an answer that is wrong by a person's word."""
    output = output_of(decision.output)
    asked = select(DECISIONS.c.answer).where(
        DECISIONS.c.parent_id == decision.id, DECISIONS.c.propensity.is_not(None)
    )
    # Where the top lane labelled what was below, it was the last to be asked.
    last = _judged(connection, [decision.id])[-1:]
    said = [(Source.TOP, verdict.answer) for _, verdict in last]
    said += [(Source.AUDIT, answer or "") for answer in connection.execute(asked).scalars()]
    same = [(source, agrees(output, answer, truth)) for source, answer in said]
    return [source for source, agreed in same if agreed is (not right)]


def _propensity(connection: Connection, attempt_id: str) -> float | None:
    query = select(LABELS.c.propensity).where(
        LABELS.c.attempt_id == attempt_id, LABELS.c.propensity.is_not(None)
    )
    found: float | None = connection.execute(query).scalars().first()
    return found


def _row(
    attempt: Any, correct: bool, source: Source, propensity: float | None, now: int
) -> dict[str, Any]:
    return {
        "id": new_id(),
        "decision_id": attempt.decision_id,
        "attempt_id": attempt.id,
        "lane": attempt.lane,
        "correct": correct,
        "source": source.value,
        "propensity": propensity,
        "created_at": now,
    }
