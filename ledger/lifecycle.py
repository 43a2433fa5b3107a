"""Every state change of a decision. Each function is one transaction over many decisions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, Table, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ledger import outbox
from ledger.database import reading, writing
from ledger.outbox import CHECK, DECIDE, Message
from ledger.records import (
    Claimed,
    Hit,
    Planned,
    StoredVerdict,
    Tried,
    attempt_row,
    claimed,
    decision_row,
    prefix_id,
    settled,
)
from ledger.tables import TABLES
from routing.decision import Plan, Settled, State, Status

QUALITY_QUEUE = "quality"
IN_AT_ONCE = 500
"""Values in one IN (...); SQLite and PostgreSQL both bear it."""

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
PREFIXES = TABLES.tables["prefix"]


@dataclass(frozen=True)
class Submission:
    """Ids in the order of submission, and the messages that announce the new ones."""

    ids: tuple[str, ...]
    messages: tuple[Message, ...]


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
class Settlement:
    """How a decision ends."""

    status: Status
    answer: str
    lane: str | None
    reason: str
    p_answer: float | None = None


@dataclass
class Followers:
    """Messages to publish and decisions that settled, once a transaction is through."""

    messages: list[Message] = field(default_factory=list)
    settled: list[tuple[str, str]] = field(default_factory=list)
    """(run id, decision id)"""


def submit(engine: Engine, run_id: str, planned: Sequence[Planned], now: int) -> Submission:
    """Write decisions that the run does not know yet, and their messages.

    A key that the run knows already keeps its old decision; its id comes back.
    """
    rows = [decision_row(run_id, item, now) for item in planned]
    with writing(engine) as connection:
        return _insert_new(connection, run_id, planned, rows, now)


def claim(
    engine: Engine, lane: str, ids: Sequence[str], *, token: str, now: int, lease_us: int
) -> list[Claimed]:
    """Take those of ``ids`` that wait on ``lane``, in the order of submission.

    Whoever holds ``token`` may write to them until ``now + lease_us``. What another worker
    holds, has answered or has settled is left out. A decision that was delivered before without
    an outcome may have killed its worker: it is only taken alone, so that its neighbours do not
    die with it.
    """
    free = (DECISIONS.c.state == State.QUEUED.value) & (DECISIONS.c.not_before <= now)
    lost = (DECISIONS.c.state == State.RUNNING.value) & (DECISIONS.c.lease_until < now)
    takes = (free | lost) if len(ids) == 1 else (free & (DECISIONS.c.deliveries == 0))
    rows: list[Any] = []
    with writing(engine) as connection:
        for chunk in _chunks(ids):
            statement = (
                update(DECISIONS)
                .where(DECISIONS.c.id.in_(chunk), DECISIONS.c.lane == lane, takes)
                .values(
                    state=State.RUNNING.value,
                    lease_token=token,
                    lease_until=now + lease_us,
                    deliveries=DECISIONS.c.deliveries + 1,
                )
                .returning(*DECISIONS.c)
            )
            rows += connection.execute(statement).all()
        systems = _systems(connection, {r.prefix_id for r in rows if r.prefix_id})
    rows.sort(key=lambda r: r.id)
    return [claimed(r, systems) for r in rows]


def renew(engine: Engine, token: str, *, now: int, lease_us: int) -> int:
    """Lengthen the lease of all decisions held under ``token``; returns how many."""
    with writing(engine) as connection:
        statement = (
            update(DECISIONS)
            .where(DECISIONS.c.lease_token == token, DECISIONS.c.state == State.RUNNING.value)
            .values(lease_until=now + lease_us)
        )
        return connection.execute(statement).rowcount


def record(engine: Engine, token: str, tried: Sequence[Tried], now: int) -> Followers:
    """Write attempts of decisions still held under ``token``; others are dropped.

    An answer goes to the quality check; a failure waits for its next try, or, without
    ``again_at``, takes the next lane of its plan or ends.
    """
    followers = Followers()
    with writing(engine) as connection:
        held = {r.id: r for r in _held(connection, token, [t.id for t in tried])}
        ours = [t for t in tried if t.id in held]
        if not ours:
            return followers
        connection.execute(insert(ATTEMPTS), [attempt_row(held[t.id], t, now) for t in ours])
        answered = [t for t in ours if not t.error]
        _mark_answered(connection, answered)
        ids = [t.id for t in answered]
        followers.messages += outbox.write(connection, CHECK, QUALITY_QUEUE, ids, now)
        for attempt in ours:
            if attempt.error:
                _after_error(connection, held[attempt.id], attempt, followers, now)
    return followers


def settle_cached(engine: Engine, token: str, hits: Sequence[Hit], now: int) -> Followers:
    """Settle held decisions with answers from the cache."""
    followers = Followers()
    with writing(engine) as connection:
        held = {r.id: r for r in _held(connection, token, [h.id for h in hits])}
        endings = [
            (
                held[h.id],
                Settlement(Status.CACHED, h.answer, h.lane, "answered before", h.p_answer),
            )
            for h in hits
            if h.id in held
        ]
        _settle(connection, endings, followers, now)
    return followers


def bury(
    engine: Engine, token: str, ids: Sequence[str], reason: str, now: int, status: Status
) -> Followers:
    """Settle held decisions that cannot be answered: with their fallback, if they have one."""
    followers = Followers()
    with writing(engine) as connection:
        rows = _held(connection, token, ids)
        _settle(connection, [(r, ending_without(r, reason, status)) for r in rows], followers, now)
    return followers


def rule(engine: Engine, rulings: Sequence[Ruling], now: int) -> Followers:
    """Write verdicts and what follows; decisions that have moved on meanwhile are left alone."""
    followers = Followers()
    with writing(engine) as connection:
        stands = _answered(connection, [r.id for r in rulings])
        live = [r for r in rulings if r.id in stands and stands[r.id].hop == r.hop]
        if not live:
            return followers
        _write_verdicts(connection, live)
        endings = [(stands[r.id], r.settle) for r in live if r.settle is not None]
        endings += [
            (stands[r.id], _best_ending(connection, stands[r.id], r.degrade))
            for r in live
            if r.degrade is not None
        ]
        _settle(connection, endings, followers, now)
        _climb(connection, [(r.id, *r.climb_to) for r in live if r.climb_to], followers, now)
        for ruling in live:
            if ruling.critic is not None:
                _ask_critic(connection, stands[ruling.id], ruling.critic, followers, now)
    return followers


def expire(engine: Engine, now: int, limit: int = 500) -> Followers:
    """Settle decisions past their deadline, whatever their state."""
    followers = Followers()
    query = (
        select(*DECISIONS.c)
        .where(DECISIONS.c.state != State.SETTLED.value, DECISIONS.c.deadline_at < now)
        .limit(limit)
    )
    with reading(engine) as connection:
        if not connection.execute(query.limit(1)).first():
            return followers
    with writing(engine) as connection:
        rows = connection.execute(query).all()
        endings = [(r, ending_without(r, "deadline passed", Status.EXPIRED)) for r in rows]
        _settle(connection, endings, followers, now)
    return followers


def republish(engine: Engine, *, now: int, stale_before: int, limit: int = 1000) -> Followers:
    """New messages for work that nobody is at: due, expired or unchecked for too long.

    What was lost with its worker goes out one by one, see :func:`claim`.
    """
    followers = Followers()
    due = (DECISIONS.c.state == State.QUEUED.value) & (DECISIONS.c.not_before <= now)
    first_time = DECISIONS.c.published_at < DECISIONS.c.not_before
    lost = (DECISIONS.c.state == State.RUNNING.value) & (DECISIONS.c.lease_until < now)
    unchecked = DECISIONS.c.state == State.ANSWERED.value
    stale = DECISIONS.c.published_at < stale_before
    columns = (DECISIONS.c.id, DECISIONS.c.lane, DECISIONS.c.state)
    found = (due & (first_time | stale)) | (lost & stale) | (unchecked & stale)
    query = select(*columns).where(found).order_by(DECISIONS.c.id).limit(limit)
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    if not rows:
        return followers
    suspects = {r.id for r in rows if r.state == State.RUNNING.value}
    with writing(engine) as connection:
        by_lane: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in rows:
            checks = row.state == State.ANSWERED.value
            by_lane[(CHECK, QUALITY_QUEUE) if checks else (DECIDE, row.lane)].append(row.id)
        for (task, queue), ids in by_lane.items():
            alone = [i for i in ids if i in suspects]
            together = [i for i in ids if i not in suspects]
            followers.messages += outbox.write(connection, task, queue, together, now)
            for one in alone:
                followers.messages += outbox.write(connection, task, queue, [one], now)
            for chunk in _chunks(ids):
                statement = update(DECISIONS).where(DECISIONS.c.id.in_(chunk))
                connection.execute(statement.values(published_at=now))
    return followers


def find_settled(engine: Engine, ids: Iterable[str]) -> list[Settled]:
    """Those of ``ids`` that are settled."""
    columns = DECISIONS.c
    found: list[Settled] = []
    with reading(engine) as connection:
        for chunk in _chunks(list(ids)):
            query = select(
                columns.id, columns.key, columns.kind, columns.status, columns.answer,
                columns.answer_lane, columns.reason, columns.cost_micros, columns.climbs,
                columns.p_answer,
            ).where(columns.id.in_(chunk), columns.state == State.SETTLED.value)  # fmt: skip
            found += [settled(r) for r in connection.execute(query)]
    return found


def ending_without(row: Any, reason: str, status: Status) -> Settlement:
    """The end of a decision without a usable answer: the asker's fallback, or none."""
    if row.fallback is None:
        return Settlement(status, "", None, reason)
    kept = Status.FALLBACK if status is Status.DEAD else status
    return Settlement(kept, row.fallback, None, f"{reason}; the asker's fallback stands in")


def _insert_new(
    connection: Connection, run_id: str, planned: Sequence[Planned], rows: list[Any], now: int
) -> Submission:
    _insert_prefixes(connection, {p.decision.system for p in planned if p.decision.system})
    connection.execute(insert_or_ignore(connection, DECISIONS, ["run_id", "key"]), rows)
    ids: dict[str, str] = {}
    for chunk in _chunks([row["key"] for row in rows]):
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


def insert_or_ignore(connection: Connection, table: Table, unique: list[str]) -> Any:
    """An INSERT that leaves rows alone whose ``unique`` columns are there already."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=unique)
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=unique)


def _systems(connection: Connection, ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    query = select(PREFIXES.c.id, PREFIXES.c.text).where(PREFIXES.c.id.in_(ids))
    return {row.id: row.text for row in connection.execute(query)}


def _held(connection: Connection, token: str, ids: Sequence[str]) -> list[Any]:
    rows: list[Any] = []
    for chunk in _chunks(ids):
        query = (
            select(*DECISIONS.c)
            .where(
                DECISIONS.c.id.in_(chunk),
                DECISIONS.c.lease_token == token,
                DECISIONS.c.state == State.RUNNING.value,
            )
            .with_for_update()
        )
        rows += connection.execute(query).all()
    return rows


def _answered(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for chunk in _chunks(ids):
        query = (
            select(*DECISIONS.c)
            .where(DECISIONS.c.id.in_(chunk), DECISIONS.c.state == State.ANSWERED.value)
            .with_for_update()
        )
        rows.update((r.id, r) for r in connection.execute(query))
    return rows


def _mark_answered(connection: Connection, tried: Sequence[Tried]) -> None:
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


def _after_error(
    connection: Connection, row: Any, tried: Tried, followers: Followers, now: int
) -> None:
    lanes = Plan.model_validate_json(row.plan).lanes
    values: dict[str, Any] = {
        "state": State.QUEUED.value,
        "lease_token": None,
        "lease_until": None,
        "deliveries": 0,
        "tries": row.tries + 1,
        "cost_micros": row.cost_micros + tried.cost_micros,
        "queued_at": now,
    }
    if tried.again_at is not None:
        values["not_before"] = tried.again_at
    elif row.hop + 1 < len(lanes):
        lane = lanes[row.hop + 1]
        values |= {"hop": row.hop + 1, "lane": lane, "tries": 0, "climbs": row.climbs + 1,
                   "published_at": now}  # fmt: skip
        followers.messages += outbox.write(connection, DECIDE, lane, [row.id], now)
    else:
        _settle_after_error(connection, row, tried, followers, now)
        return
    connection.execute(update(DECISIONS).where(DECISIONS.c.id == row.id).values(**values))


def _settle_after_error(
    connection: Connection, row: Any, tried: Tried, followers: Followers, now: int
) -> None:
    ending = _best_ending(connection, row, f"{row.lane} failed: {tried.error}")
    cost = {"cost_micros": row.cost_micros + tried.cost_micros, "tries": row.tries + 1}
    connection.execute(update(DECISIONS).where(DECISIONS.c.id == row.id).values(**cost))
    _settle(connection, [(row, ending)], followers, now)


def _best_ending(connection: Connection, row: Any, reason: str) -> Settlement:
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


def _write_verdicts(connection: Connection, rulings: Sequence[Ruling]) -> None:
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


def _settle(
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
            for row, e in endings
        ],
    )
    followers.settled += [(row.run_id, row.id) for row, _ in endings]
    parents = [row.parent_id for row, _ in endings if row.parent_id]
    followers.messages += outbox.write(connection, CHECK, QUALITY_QUEUE, parents, now)


def _climb(
    connection: Connection,
    climbs: Sequence[tuple[str, int, str]],
    followers: Followers,
    now: int,
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
            tries=0,
            climbs=DECISIONS.c.climbs + 1,
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


def _ask_critic(
    connection: Connection, row: Any, critic: Planned, followers: Followers, now: int
) -> None:
    rows = [decision_row(row.run_id, critic, now)]
    submission = _insert_new(connection, row.run_id, [critic], rows, now)
    followers.messages += submission.messages
    statement = update(DECISIONS).where(DECISIONS.c.id == row.id)
    connection.execute(statement.values(critic_id=submission.ids[0], published_at=now))


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), IN_AT_ONCE):
        yield values[start : start + IN_AT_ONCE]
