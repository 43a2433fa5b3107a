"""What the state changes of decisions are made of: each acts within an open transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from ledger import outbox
from ledger.database import insert_or_ignore
from ledger.outbox import CHECK, DECIDE, Message
from ledger.records import Planned, StoredVerdict, Tried, decision_row, prefix_id
from ledger.tables import TABLES
from routing.decision import Plan, State, Status

QUALITY_QUEUE = "quality"
IN_AT_ONCE = 500
"""Values in one IN (...); SQLite and PostgreSQL both bear it."""

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
PREFIXES = TABLES.tables["prefix"]
ANSWERED_WELL = (Status.ACCEPTED, Status.CACHED, Status.DEGRADED)


@dataclass(frozen=True)
class Submission:
    """Ids in the order of submission, and the messages that announce the new ones."""

    ids: tuple[str, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Settlement:
    """How a decision ends."""

    status: Status
    answer: str
    lane: str | None
    reason: str
    p_answer: float | None = None


@dataclass(frozen=True)
class Ruling:
    """What the quality check decided for one attempt, and what follows.

    One of ``settle``, ``climb_to`` (hop index and lane), ``critic`` (a question to be settled
    first) and ``degrade`` (why the best attempt so far has to do) is set.
    """

    id: str
    hop: int
    attempt_id: str
    verdict: str
    score: float
    passed: bool
    settle: Settlement | None = None
    climb_to: tuple[int, str] | None = None
    critic: Planned | None = None
    degrade: str | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a decision may not be asked on its lane, and what is left, tried in this order.

    ``climb_to`` is another lane of its plan. Then the best answer so far settles it with
    ``status``. Then ``lower`` is its plan with a free lane put after the hop it stands on, whose
    answer will settle it with ``status``. Then it waits until ``again_at``, or ends.
    """

    id: str
    status: Status
    reason: str
    climb_to: tuple[int, str] | None = None
    lower: Plan | None = None
    again_at: int | None = None


@dataclass
class Followers:
    """Messages to publish and decisions that settled, once a transaction is through."""

    messages: list[Message] = field(default_factory=list)
    settled: list[tuple[str, str]] = field(default_factory=list)
    """(run id, decision id)"""


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), IN_AT_ONCE):
        yield values[start : start + IN_AT_ONCE]


def insert_new(
    connection: Connection, run_id: str, planned: Sequence[Planned], rows: list[Any], now: int
) -> Submission:
    _insert_prefixes(connection, {p.decision.system for p in planned if p.decision.system})
    connection.execute(insert_or_ignore(connection, DECISIONS, ["run_id", "key"]), rows)
    ids: dict[str, str] = {}
    for chunk in chunks([row["key"] for row in rows]):
        query = select(DECISIONS.c.key, DECISIONS.c.id).where(
            DECISIONS.c.run_id == run_id, DECISIONS.c.key.in_(chunk)
        )
        ids.update((key, found) for key, found in connection.execute(query))
    by_lane: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if ids[row["key"]] == row["id"]:
            by_lane[row["lane"]].append(row["id"])
    messages: list[Message] = []
    for lane, new in by_lane.items():
        messages += outbox.write(connection, DECIDE, lane, new, now)
    return Submission(tuple(ids[row["key"]] for row in rows), tuple(messages))


def _insert_prefixes(connection: Connection, texts: set[str]) -> None:
    if texts:
        rows = [{"id": prefix_id(text), "text": text} for text in sorted(texts)]
        connection.execute(insert_or_ignore(connection, PREFIXES, ["id"]), rows)


def systems_of(connection: Connection, ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    query = select(PREFIXES.c.id, PREFIXES.c.text).where(PREFIXES.c.id.in_(ids))
    return {row.id: row.text for row in connection.execute(query)}


def held_rows(connection: Connection, token: str, ids: Sequence[str]) -> list[Any]:
    rows: list[Any] = []
    for chunk in chunks(ids):
        query = (
            select(*DECISIONS.c)
            .where(
                DECISIONS.c.id.in_(chunk),
                DECISIONS.c.lease_token == token,
                DECISIONS.c.state == State.RUNNING.value,
            )
            .order_by(DECISIONS.c.id)
            .with_for_update()
        )
        rows += connection.execute(query).all()
    return rows


def answered_rows(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for chunk in chunks(ids):
        query = (
            select(*DECISIONS.c)
            .where(DECISIONS.c.id.in_(chunk), DECISIONS.c.state == State.ANSWERED.value)
            .order_by(DECISIONS.c.id)
            .with_for_update()
        )
        rows.update((r.id, r) for r in connection.execute(query))
    return rows


def mark_answered(connection: Connection, tried: Sequence[Tried]) -> None:
    if not tried:
        return
    statement = (
        update(DECISIONS)
        .where(DECISIONS.c.id == bindparam("b_id"))
        .values(
            state=State.ANSWERED.value,
            lease_token=None,
            lease_until=None,
            deliveries=0,
            tries=DECISIONS.c.tries + 1,
            cost_micros=DECISIONS.c.cost_micros + bindparam("b_cost"),
        )
    )
    connection.execute(statement, [{"b_id": t.id, "b_cost": t.cost_micros} for t in tried])


def write_verdicts(connection: Connection, rulings: Sequence[Ruling]) -> None:
    statement = (
        update(ATTEMPTS)
        .where(ATTEMPTS.c.id == bindparam("b_id"))
        .values(
            verdict=bindparam("b_verdict"), score=bindparam("b_score"), passed=bindparam("b_passed")
        )
    )
    connection.execute(
        statement,
        [
            {"b_id": r.attempt_id, "b_verdict": r.verdict, "b_score": r.score, "b_passed": r.passed}
            for r in rulings
        ],
    )


def settle(
    connection: Connection,
    endings: Sequence[tuple[Any, Settlement]],
    followers: Followers,
    now: int,
) -> None:
    if not endings:
        return
    statement = (
        update(DECISIONS)
        .where(DECISIONS.c.id == bindparam("b_id"), DECISIONS.c.state != State.SETTLED.value)
        .values(
            state=State.SETTLED.value,
            lease_token=None,
            lease_until=None,
            settled_at=now,
            status=bindparam("b_status"),
            answer=bindparam("b_answer"),
            answer_lane=bindparam("b_lane"),
            reason=bindparam("b_reason"),
            p_answer=bindparam("b_p"),
        )
    )
    connection.execute(
        statement,
        [
            {
                "b_id": row.id,
                "b_status": e.status.value,
                "b_answer": e.answer,
                "b_lane": e.lane,
                "b_reason": e.reason,
                "b_p": e.p_answer,
            }
            for row, e in ((row, _as_held(row, ending)) for row, ending in endings)
        ],
    )
    _end_critics(connection, [row.critic_id for row, _ in endings if row.critic_id], now)
    followers.settled += [(row.run_id, row.id) for row, _ in endings]
    parents = [row.parent_id for row, _ in endings if row.parent_id]
    followers.messages += outbox.write(connection, CHECK, QUALITY_QUEUE, parents, now)


def _end_critics(connection: Connection, ids: Sequence[str], now: int) -> None:
    """Nobody asks a critic any more whose question is settled."""
    for chunk in chunks(ids):
        open_ones = DECISIONS.c.id.in_(chunk) & (DECISIONS.c.state != State.SETTLED.value)
        connection.execute(
            update(DECISIONS)
            .where(open_ones)
            .values(
                state=State.SETTLED.value, lease_token=None, lease_until=None, settled_at=now,
                status=Status.CANCELLED.value, answer="", reason="what it was to judge is settled",
            )
        )  # fmt: skip


def _as_held(row: Any, ending: Settlement) -> Settlement:
    """The ending of a decision to which a dearer lane was refused says so."""
    if row.held_status is None or ending.status not in ANSWERED_WELL:
        return ending
    reason = f"{row.held_reason}; {ending.reason}"
    return replace(ending, status=Status(row.held_status), reason=reason)


def refuse(
    connection: Connection, row: Any, refusal: Refusal, followers: Followers, now: int
) -> None:
    """Move a held decision on from a lane that may not be called; see :class:`Refusal`."""
    if refusal.climb_to is not None:
        climb(connection, [(row.id, *refusal.climb_to)], followers, now)
    elif _best_attempt(connection, row.id) is not None:
        ending = best_ending(connection, row, refusal.reason)
        settle(connection, [(row, replace(ending, status=refusal.status))], followers, now)
    elif refusal.lower is not None:
        held = {"plan": refusal.lower.model_dump_json()}
        if row.held_status is None:  # the first refusal says why it went down
            held |= {"held_status": refusal.status.value, "held_reason": refusal.reason}
        connection.execute(update(DECISIONS).where(DECISIONS.c.id == row.id).values(**held))
        lane = refusal.lower.lanes[row.hop + 1]
        climb(connection, [(row.id, row.hop + 1, lane)], followers, now, upwards=False)
    elif refusal.again_at is not None:
        put_off(connection, row.id, refusal.again_at, None)
    else:
        status = Status.DEAD if refusal.status is Status.DEGRADED else refusal.status
        settle(connection, [(row, ending_without(row, refusal.reason, status))], followers, now)


def put_off(connection: Connection, decision_id: str, again_at: int, slot_at: int | None) -> None:
    """Queue a held decision again on its lane, not before a time; it counts as no try."""
    connection.execute(
        update(DECISIONS)
        .where(DECISIONS.c.id == decision_id)
        .values(
            state=State.QUEUED.value,
            lease_token=None,
            lease_until=None,
            deliveries=0,
            not_before=again_at,
            slot_at=slot_at,
        )
    )


def climb(
    connection: Connection,
    climbs: Sequence[tuple[str, int, str]],
    followers: Followers,
    now: int,
    *,
    upwards: bool = True,
) -> None:
    if not climbs:
        return
    statement = (
        update(DECISIONS)
        .where(DECISIONS.c.id == bindparam("b_id"))
        .values(
            state=State.QUEUED.value,
            hop=bindparam("b_hop"),
            lane=bindparam("b_lane"),
            lease_token=None,
            lease_until=None,
            deliveries=0,
            slot_at=None,
            tries=0,
            climbs=DECISIONS.c.climbs + int(upwards),
            critic_id=None,
            queued_at=now,
            published_at=now,
        )
    )
    connection.execute(
        statement, [{"b_id": i, "b_hop": hop, "b_lane": lane} for i, hop, lane in climbs]
    )
    by_lane: dict[str, list[str]] = defaultdict(list)
    for decision_id, _, lane in climbs:
        by_lane[lane].append(decision_id)
    for lane, ids in by_lane.items():
        followers.messages += outbox.write(connection, DECIDE, lane, ids, now)


def ask_critic(
    connection: Connection, row: Any, critic: Planned, followers: Followers, now: int
) -> None:
    rows = [decision_row(row.run_id, critic, now)]
    submission = insert_new(connection, row.run_id, [critic], rows, now)
    followers.messages += submission.messages
    statement = update(DECISIONS).where(DECISIONS.c.id == row.id)
    connection.execute(
        statement.values(critic_id=submission.ids[0], published_at=now, deliveries=0)
    )


def after_error(
    connection: Connection, row: Any, tried: Tried, followers: Followers, now: int
) -> None:
    """The same lane later, the next lane, or an end; what the attempt cost is added."""
    values: dict[str, Any] = {
        "tries": row.tries + 1,
        "cost_micros": row.cost_micros + tried.cost_micros,
        "slot_at": None,
    }
    if tried.again_at is not None:
        values |= {"state": State.QUEUED.value, "lease_token": None, "lease_until": None,
                   "deliveries": 0, "queued_at": now, "not_before": tried.again_at}  # fmt: skip
    connection.execute(update(DECISIONS).where(DECISIONS.c.id == row.id).values(**values))
    if tried.again_at is None:
        reason = f"{row.lane} failed: {tried.error}"
        refusal = Refusal(row.id, Status.DEGRADED, reason, tried.climb_to, tried.lower)
        refuse(connection, row, refusal, followers, now)


def best_ending(connection: Connection, row: Any, reason: str) -> Settlement:
    best = _best_attempt(connection, row.id)
    if best is None:
        return ending_without(row, reason, Status.DEAD)
    answer, lane, p_answer = best
    return Settlement(Status.DEGRADED, answer, lane, f"{reason}; best attempt", p_answer)


def _best_attempt(connection: Connection, decision_id: str) -> tuple[str, str, float | None] | None:
    """The usable attempt with the best score, the latest of equals."""
    query = (
        select(ATTEMPTS.c.verdict, ATTEMPTS.c.lane, ATTEMPTS.c.score)
        .where(ATTEMPTS.c.decision_id == decision_id, ATTEMPTS.c.verdict.is_not(None))
        .order_by(ATTEMPTS.c.score.desc(), ATTEMPTS.c.created_at.desc())
    )
    for row in connection.execute(query):
        verdict = StoredVerdict.model_validate_json(row.verdict)
        if verdict.usable:
            return verdict.answer, row.lane, verdict.p_answer
    return None


def ending_without(row: Any, reason: str, status: Status) -> Settlement:
    """The end of a decision without a usable answer: the asker's fallback, or none."""
    if row.fallback is None:
        return Settlement(status, "", None, reason)
    kept = Status.FALLBACK if status is Status.DEAD else status
    return Settlement(kept, row.fallback, None, f"{reason}; the asker's fallback stands in")
