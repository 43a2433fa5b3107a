"""Goes through a run's decisions, attempts and bills, and finds what ought not to be there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, text

from ledger.database import reading, writing

ANSWERS = frozenset({"accepted", "cached", "degraded"})
PAID_FOR = frozenset({"answered", "late"})
"""Outcomes of attempts whose cost is known."""
GIVEN_UP = frozenset({"unknown_charge", "late"})
"""Outcomes of calls whose worker was lost; ``late`` if it was heard of again."""
TRAIL = (
    "CREATE TABLE IF NOT EXISTS fault_trail "
    "(decision_id TEXT, was TEXT, state TEXT, status TEXT, answer TEXT)",
    # Not on INSERT: no decision is born settled, and an update of the cost is no settlement.
    "CREATE TRIGGER IF NOT EXISTS fault_settled AFTER UPDATE OF state, status, answer ON decision "
    "WHEN NEW.state = 'settled' OR OLD.state = 'settled' BEGIN INSERT INTO fault_trail "
    "VALUES (NEW.id, OLD.state, NEW.state, NEW.status, NEW.answer); END",
)
POSTGRES_TRAIL = (
    "CREATE TABLE IF NOT EXISTS fault_trail (rowid BIGSERIAL, "
    "decision_id TEXT, was TEXT, state TEXT, status TEXT, answer TEXT)",
    "CREATE OR REPLACE FUNCTION fault_settled() RETURNS trigger AS $$ BEGIN "
    "INSERT INTO fault_trail (decision_id, was, state, status, answer) "
    "VALUES (NEW.id, OLD.state, NEW.state, NEW.status, NEW.answer); RETURN NEW; END $$ "
    "LANGUAGE plpgsql",
    "CREATE OR REPLACE TRIGGER fault_settled AFTER UPDATE OF state, status, answer ON decision "
    "FOR EACH ROW WHEN (NEW.state = 'settled' OR OLD.state = 'settled') "
    "EXECUTE FUNCTION fault_settled()",
)


def keep_trail(engine: Engine) -> None:
    """Let the database itself note every settlement from now on."""
    with writing(engine) as connection:
        for statement in POSTGRES_TRAIL if engine.dialect.name == "postgresql" else TRAIL:
            connection.execute(text(statement))


@dataclass
class Findings:
    """What is wrong, one sentence a case, by the promise that it breaks."""

    decisions: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    billed_twice: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def sentences(self, at_most: int = 12) -> Iterator[str]:
        """The first of each sort."""
        for found in (self.lost, self.doubled, self.billed_twice, self.other):
            yield from found[:at_most]
            if len(found) > at_most:
                yield f"... and {len(found) - at_most} more of this sort"


def audit(
    engine: Engine,
    run_id: str,
    bills: Mapping[str, Sequence[int]],
    *,
    submitted: Collection[str] = (),
    may_end: Collection[str] = (),
    once: Collection[str] = (),
) -> Findings:
    """Go through a run.

    ``bills`` has the micro-dollars of each billed call by decision key, ``submitted`` the ids
    that the producer holds, ``may_end`` the ids that may end without an answer, ``once`` the lanes
    where a call that may have been served is not repeated.
    """
    findings = Findings()
    query = "SELECT * FROM decision WHERE run_id = :run ORDER BY id"
    with reading(engine) as connection:
        decisions = connection.execute(text(query), {"run": run_id}).all()
        attempts = _by_decision(connection, "attempt", "lane, number, created_at, id", run_id)
        trail = _by_decision(connection, "fault_trail", "rowid", run_id)
    findings.decisions = len(decisions)
    known = {row.id for row in decisions}
    findings.lost += [f"{i} is not in the ledger" for i in submitted if i not in known]
    for row in decisions:
        own = attempts.get(row.id, [])
        _look_at_end(findings, row, own, trail.get(row.id, []), row.id in may_end)
        _look_at_attempts(findings, row, own)
        _look_at_bills(findings, row, own, list(bills.get(row.key, ())))
        _look_at_repeats(findings, row, own, once)
    return findings


def _by_decision(connection: Any, table: str, order: str, run_id: str) -> dict[str, list[Any]]:
    query = (
        f"SELECT t.* FROM {table} t JOIN decision d ON d.id = t.decision_id "
        f"WHERE d.run_id = :run ORDER BY {', '.join(f't.{c.strip()}' for c in order.split(','))}"
    )
    found: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(text(query), {"run": run_id}):
        found[row.decision_id].append(row)
    return found


def _look_at_end(
    findings: Findings, row: Any, attempts: Sequence[Any], trail: Sequence[Any], may_end: bool
) -> None:
    name = f"{row.key} ({row.kind})"
    if row.state != "settled":
        findings.lost.append(f"{name} is still {row.state} on {row.lane}, tries {row.tries}, "
                             f"deliveries {row.deliveries}")  # fmt: skip
        return
    # A call that was given up for lost is not repeated on every lane, also if it came back late.
    given_up = any(a.outcome in GIVEN_UP for a in attempts)
    if row.status not in ANSWERS and not may_end and not given_up:
        findings.lost.append(f"{name} ended {row.status}: {row.reason}")
    settlements = [t for t in trail if t.state == "settled" and t.was != "settled"]
    again = [t for t in trail if t.was == "settled"]
    if len(settlements) != 1 or again:
        findings.doubled.append(
            f"{name} settled {len(settlements)} times and was changed {len(again)} times after: "
            + "; ".join(f"{t.was} -> {t.state} {t.status} {t.answer!r}" for t in trail)
        )


def _look_at_attempts(findings: Findings, row: Any, attempts: Sequence[Any]) -> None:
    places = Counter((a.lane, a.number) for a in attempts)
    for (lane, number), count in places.items():
        if count > 1:
            findings.doubled.append(f"{row.key} has {count} rows for {lane} {number}")
    for lane in {a.lane for a in attempts}:
        answered = False
        excused = False
        for attempt in (a for a in attempts if a.lane == lane):
            if attempt.outcome == "answered":
                if answered and not excused:
                    findings.doubled.append(f"{row.key} was answered twice by {lane}: "
                                            f"{_story(attempts)}")  # fmt: skip
                answered, excused = True, False
            else:
                excused = True
    if row.state == "settled" and any(a.outcome == "intent" for a in attempts):
        findings.other.append(f"{row.key} settled over an open intent: {_story(attempts)}")


def _look_at_bills(
    findings: Findings, row: Any, attempts: Sequence[Any], bills: Sequence[int]
) -> None:
    """Each billed call is an attempt of known cost, or hides behind an unknown charge."""
    costs = Counter(a.cost_micros for a in attempts if a.outcome in PAID_FOR and a.cost_micros)
    unknown = [a for a in attempts if a.outcome == "unknown_charge"]
    beyond = len(bills) - costs.total() - len(unknown)
    if beyond > 0:
        findings.billed_twice.append(
            f"{row.key} ({row.kind}) was billed {len(bills)} times: {_story(attempts)}"
        )
    invented = costs - Counter(bills)
    if invented:
        findings.other.append(f"{row.key} has costs {sorted(invented.elements())} that nobody "
                              f"billed: bills {list(bills)}, {_story(attempts)}")  # fmt: skip
    if any(a.outcome == "unknown_charge" and not a.estimated_micros for a in attempts):
        findings.other.append(f"{row.key} has an unknown charge without an estimate")
    total = sum(a.cost_micros for a in attempts)
    if row.cost_micros != total:
        findings.other.append(f"{row.key} says it cost {row.cost_micros}, its attempts {total}: "
                              f"{_story(attempts)}")  # fmt: skip


def _look_at_repeats(
    findings: Findings, row: Any, attempts: Sequence[Any], once: Collection[str]
) -> None:
    for lane in once:
        outcomes = [a.outcome for a in attempts if a.lane == lane]
        if any(outcome in GIVEN_UP for outcome in outcomes[:-1]):
            findings.billed_twice.append(
                f"{row.key} was asked again by {lane}, which repeats no unknown charge: "
                f"{_story(attempts)}"
            )


def _story(attempts: Sequence[Any]) -> str:
    return ", ".join(f"{a.lane}#{a.number} {a.outcome} {a.cost_micros}" for a in attempts) or "none"
