"""What a run asked and was answered, so that another run can be given the same answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row, Select, select

from config.catalog import Catalog
from ledger.database import insert_or_ignore, reading, writing
from ledger.recorded import asked_by_askers
from ledger.records import Planned, decision_row, prefix_id, storable
from ledger.transitions import DECISIONS, chunks, insert_prefixes
from routing.complexity import complexity
from routing.decision import Decision, Hop, Plan, Settled, State, Status

PAGE = 1_000
"""Decisions read at a time; a run of any length passes through bounded memory."""
NOBODY = "replayed"
"""The lane of the plan where no lane had answered."""


@dataclass(frozen=True)
class Recorded:
    """The answer that a question had. ``question`` is :func:`question_digest`."""

    key: str
    question: str
    status: Status
    answer: str
    lane: str | None
    p_answer: float | None
    climbs: int


def question_digest(decision: Decision) -> str:
    """32 hexadecimal digits over all that a model is asked; equal for equal questions."""
    system = prefix_id(decision.system) if decision.system else None
    output = decision.output.model_dump_json(exclude_none=True)
    return _digest(decision.kind, system, decision.prompt, output, decision.template)


def find_recorded(engine: Engine, run_id: str, keys: Sequence[str]) -> dict[str, Recorded]:
    """What the run's settled decisions of these keys were answered, by key."""
    found: dict[str, Recorded] = {}
    with reading(engine) as connection:
        for chunk in chunks(list(keys)):
            query = _recorded(run_id).where(DECISIONS.c.key.in_(chunk))
            found.update((row.key, _as_recorded(row)) for row in connection.execute(query))
    return found


def all_recorded(engine: Engine, run_id: str) -> Iterator[Recorded]:
    """All settled decisions that the run's asker asked, in the order of submission."""
    last = ""
    while True:
        query = _recorded(run_id).where(DECISIONS.c.id > last).order_by(DECISIONS.c.id).limit(PAGE)
        with reading(engine) as connection:
            rows = connection.execute(query).all()
        if not rows:
            return
        yield from map(_as_recorded, rows)
        last = rows[-1].id


def put_replayed(
    engine: Engine,
    run_id: str,
    items: Sequence[tuple[Decision, Recorded]],
    *,
    source: str,
    catalog: Catalog,
    now: int,
) -> list[Settled]:
    """Write decisions as settled with recorded answers, in one transaction; in the given order.

    A key that the run knows already keeps its old decision.
    """
    if not items:
        return []
    planned = [Planned(d, _plan(d, old, source, catalog)) for d, old in items]
    rows = [
        decision_row(run_id, one, now) | _ending(old, source, now)
        for one, (_, old) in zip(planned, items, strict=True)
    ]
    with writing(engine) as connection:
        insert_prefixes(connection, {p.decision.system for p in planned if p.decision.system})
        connection.execute(insert_or_ignore(connection, DECISIONS, ["run_id", "key"]), rows)
    return [_settled(row, decision) for row, (decision, _) in zip(rows, items, strict=True)]


def _recorded(run_id: str) -> Select[Any]:
    c = DECISIONS.c
    return select(
        c.id, c.key, c.kind, c.prefix_id, c.prompt, c.output, c.template, c.status, c.answer,
        c.answer_lane, c.p_answer, c.climbs,
    ).where(
        asked_by_askers(run_id), c.state == State.SETTLED.value,
        c.status != Status.CANCELLED.value,
    )  # fmt: skip


def _as_recorded(row: Row[Any]) -> Recorded:
    question = _digest(row.kind, row.prefix_id, row.prompt, row.output, row.template)
    return Recorded(row.key, question, Status(row.status), row.answer or "", row.answer_lane,
                    row.p_answer, row.climbs)  # fmt: skip


def _digest(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _plan(decision: Decision, old: Recorded, source: str, catalog: Catalog) -> Plan:
    hop = Hop(lane=old.lane or NOBODY, reason=f"recorded in {source}")
    return Plan(hops=(hop,), complexity=complexity(decision, catalog))


def _ending(old: Recorded, source: str, now: int) -> dict[str, Any]:
    return {
        "state": State.SETTLED.value,
        "status": Status.REPLAYED.value,
        "answer": storable(old.answer),
        "answer_lane": old.lane,
        "reason": f"{old.status.value} in {source}",
        "p_answer": old.p_answer,
        "climbs": old.climbs,
        "settled_at": now,
    }


def _settled(row: dict[str, Any], decision: Decision) -> Settled:
    return Settled(
        id=row["id"], key=decision.key, kind=decision.kind, status=Status.REPLAYED,
        answer=row["answer"], lane=row["answer_lane"], reason=row["reason"],
        climbs=row["climbs"], p_answer=row["p_answer"],
    )  # fmt: skip
