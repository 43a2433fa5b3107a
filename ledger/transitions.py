"""What the state changes of decisions are made of: each acts within an open transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, select, update

from ledger import labels, outbox
from ledger.best import best_attempt
from ledger.database import insert_or_ignore
from ledger.metrics import counting
from ledger.outbox import CHECK, DECIDE, Message
from ledger.records import Planned, Tried, ended, prefix_id
from ledger.rulings import Followers, Refusal, Ruling, Settlement, Submission
from ledger.tables import TABLES
from routing.consensus import PANEL_KEY
from routing.decision import State, Status

QUALITY_QUEUE = "quality"
IN_AT_ONCE = 500
"""Values in one IN (...); SQLite and PostgreSQL both bear it."""

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
PREFIXES = TABLES.tables["prefix"]
# Statements over all columns take a millisecond to be put together: those of every message are
# made once, with the ids as a parameter.
IDS: BindParameter[str] = bindparam("ids", expanding=True)
OPEN = tuple(state.value for state in State if state is not State.SETTLED)
"""States of what is not settled: each is looked up in an index, which ``!=`` would not be."""
ANSWERED_WELL = (Status.ACCEPTED, Status.CACHED, Status.DEGRADED)


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), IN_AT_ONCE):
        yield values[start : start + IN_AT_ONCE]


def insert_new(
    connection: Connection, run_id: str, planned: Sequence[Planned], rows: list[Any], now: int
) -> Submission:
    insert_prefixes(connection, {p.decision.system for p in planned if p.decision.system})
    connection.execute(insert_or_ignore(connection, DECISIONS, ["run_id", "key"]), rows)
    ids: dict[str, str] = {}
    for chunk in chunks([row["key"] for row in rows]):
        query = select(DECISIONS.c.key, DECISIONS.c.id).where(
            DECISIONS.c.run_id == run_id, DECISIONS.c.key.in_(chunk)
        )
        ids.update((key, found) for key, found in connection.execute(query))
    new: list[tuple[str, str]] = []
    by_lane: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if ids[row["key"]] == row["id"]:
            by_lane[row["lane"]].append(row["id"])
            new.append((row["kind"], row["lane"]))
    counting.submitted(connection, new)
    messages: list[Message] = []
    for lane, written in by_lane.items():
        messages += outbox.write(connection, DECIDE, lane, written, now, run_id)
    return Submission(tuple(ids[row["key"]] for row in rows), tuple(messages))


def insert_prefixes(connection: Connection, texts: set[str]) -> None:
    """Keep the constant parts of prompts that are not kept yet."""
    if texts:
        rows = [{"id": prefix_id(text), "text": text} for text in sorted(texts)]
        connection.execute(insert_or_ignore(connection, PREFIXES, ["id"]), rows)


def systems_of(connection: Connection, ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    query = select(PREFIXES.c.id, PREFIXES.c.text).where(PREFIXES.c.id.in_(ids))
    return {row.id: row.text for row in connection.execute(query)}


_HELD = (
    select(*DECISIONS.c)
    .where(
        DECISIONS.c.id.in_(IDS),
        DECISIONS.c.lease_token == bindparam("token"),
        DECISIONS.c.state == State.RUNNING.value,
    )
    .order_by(DECISIONS.c.id)
    .with_for_update()
)
_ANSWERED = (
    select(*DECISIONS.c)
    .where(DECISIONS.c.id.in_(IDS), DECISIONS.c.state == State.ANSWERED.value)
    .order_by(DECISIONS.c.id)
    .with_for_update()
)


def held_rows(connection: Connection, token: str, ids: Sequence[str]) -> list[Any]:
    rows: list[Any] = []
    for chunk in chunks(ids):
        rows += connection.execute(_HELD, {"ids": chunk, "token": token}).all()
    return rows


def answered_rows(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for chunk in chunks(ids):
        rows.update((r.id, r) for r in connection.execute(_ANSWERED, {"ids": chunk}))
    return rows


_MARK_ANSWERED = (
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


def mark_answered(connection: Connection, tried: Sequence[Tried]) -> None:
    if not tried:
        return
    connection.execute(_MARK_ANSWERED, [{"b_id": t.id, "b_cost": t.cost_micros} for t in tried])


_WRITE_VERDICTS = (
    update(ATTEMPTS)
    .where(ATTEMPTS.c.id == bindparam("b_id"))
    .values(
        verdict=bindparam("b_verdict"), score=bindparam("b_score"), passed=bindparam("b_passed")
    )
)


def write_verdicts(connection: Connection, rulings: Sequence[Ruling]) -> None:
    connection.execute(
        _WRITE_VERDICTS,
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
    held = [(row, _as_held(row, ending)) for row, ending in endings]
    _write_endings(connection, [(row.id, ending) for row, ending in held], now)
    counting.settled(connection, [(row, e.status, e.lane) for row, e in held], now)
    followers.ended += [ended(row, e.status, e.lane, now) for row, e in held]
    end_questions(connection, [row for row, _ in endings], now)
    labels.from_audits(connection, endings, now)
    followers.settled += [(row.run_id, row.id) for row, _ in endings]
    # Nobody waits for an audit.
    asked = [row for row, _ in endings if row.parent_id and row.propensity is None]
    parents, run = [row.parent_id for row in asked], outbox.only_run(asked)
    followers.messages += outbox.write(connection, CHECK, QUALITY_QUEUE, parents, now, run)


_WRITE_ENDINGS = (
    update(DECISIONS)
    .where(DECISIONS.c.id == bindparam("b_id"), DECISIONS.c.state != State.SETTLED.value)
    .values(
        state=State.SETTLED.value,
        lease_token=None,
        lease_until=None,
        settled_at=bindparam("b_now"),
        status=bindparam("b_status"),
        answer=bindparam("b_answer"),
        answer_lane=bindparam("b_lane"),
        reason=bindparam("b_reason"),
        p_answer=bindparam("b_p"),
    )
)


def _write_endings(
    connection: Connection, endings: Sequence[tuple[str, Settlement]], now: int
) -> None:
    rows = [
        {"b_id": i, "b_now": now, "b_status": e.status.value, "b_answer": e.answer,
         "b_lane": e.lane, "b_reason": e.reason, "b_p": e.p_answer}
        for i, e in endings
    ]  # fmt: skip
    connection.execute(_WRITE_ENDINGS, rows)


def end_questions(connection: Connection, rows: Sequence[Any], now: int) -> None:
    """Nobody asks a critic or a panel any more about an answer whose fate is decided."""
    asking = {row.id: row.critic_id for row in rows if row.critic_id}
    for chunk in chunks(list(asking)):
        critics = DECISIONS.c.id.in_([asking[one] for one in chunk])
        panels = DECISIONS.c.parent_id.in_(chunk) & DECISIONS.c.key.startswith(PANEL_KEY)
        open_ones = (critics | panels) & (DECISIONS.c.state != State.SETTLED.value)
        dropped = connection.execute(
            update(DECISIONS)
            .where(open_ones)
            .values(
                state=State.SETTLED.value, lease_token=None, lease_until=None, settled_at=now,
                status=Status.CANCELLED.value, answer="", reason="what it was to judge is settled",
            )
            .returning(DECISIONS.c.kind, DECISIONS.c.created_at)
        )  # fmt: skip
        counting.settled(connection, [(row, Status.CANCELLED, None) for row in dropped], now)


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
        climb(connection, [(row, *refusal.climb_to)], followers, now)
        counting.escalated(connection, row.lane, refusal.climb_to[1])
    elif best_attempt(connection, row.id) is not None:
        ending = best_ending(connection, row, refusal.reason)
        settle(connection, [(row, replace(ending, status=refusal.status))], followers, now)
    elif refusal.lower is not None:
        held = {"plan": refusal.lower.model_dump_json()}
        if row.held_status is None:  # the first refusal says why it went down
            held |= {"held_status": refusal.status.value, "held_reason": refusal.reason}
        connection.execute(update(DECISIONS).where(DECISIONS.c.id == row.id).values(**held))
        lane = refusal.lower.lanes[row.hop + 1]
        climb(connection, [(row, row.hop + 1, lane)], followers, now, upwards=False)
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
    climbs: Sequence[tuple[Any, int, str]],
    followers: Followers,
    now: int,
    *,
    upwards: bool = True,
) -> None:
    if not climbs:
        return
    _move(connection, [(row.id, hop, lane) for row, hop, lane in climbs], now, upwards)
    by_lane: dict[str, list[Any]] = defaultdict(list)
    for row, _, lane in climbs:
        by_lane[lane].append(row)
    for lane, rows in by_lane.items():
        ids, run = [row.id for row in rows], outbox.only_run(rows)
        followers.messages += outbox.write(connection, DECIDE, lane, ids, now, run)


def _move(
    connection: Connection, climbs: Sequence[tuple[str, int, str]], now: int, upwards: bool
) -> None:
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
    best = best_attempt(connection, row.id)
    if best is None:
        return ending_without(row, reason, Status.DEAD)
    answer, lane, p_answer = best
    return Settlement(Status.DEGRADED, answer, lane, f"{reason}; best attempt", p_answer)


def ending_without(row: Any, reason: str, status: Status) -> Settlement:
    """The end of a decision without a usable answer: the asker's fallback, or none."""
    if row.fallback is None:
        return Settlement(status, "", None, reason)
    kept = Status.FALLBACK if status is Status.DEAD else status
    return Settlement(kept, row.fallback, None, f"{reason}; the asker's fallback stands in")
