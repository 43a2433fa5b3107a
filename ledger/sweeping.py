"""What the steward does to decisions: work that nobody is at, deadlines, lanes without workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, exists, select, update

from ledger import calls, outbox
from ledger.database import reading, writing
from ledger.metrics import counting
from ledger.outbox import CHECK, DECIDE
from ledger.rulings import Followers, Refusal
from ledger.transitions import (
    DECISIONS,
    OPEN,
    QUALITY_QUEUE,
    answered_rows,
    chunks,
    ending_without,
    refuse,
    settle,
)
from routing.decision import Plan, State, Status

EXPIRED = "deadline passed"
"""Why a decision past its deadline ended."""
ALONE_A_ROUND = 50
"""Messages of a single decision that a round sends; more would only lengthen the queue."""
ASKED_AGAIN = 1
"""``deliveries`` of an answer whose check was asked for again; from then on begun checks count."""


def expire(engine: Engine, now: int, limit: int = 500) -> Followers:
    """Settle decisions past their deadline, whatever their state."""
    followers = Followers()
    query = (
        select(*DECISIONS.c)
        .where(DECISIONS.c.state.in_(OPEN), DECISIONS.c.deadline_at < now)
        .limit(limit)
    )
    with reading(engine) as connection:
        if not connection.execute(query.limit(1)).first():
            return followers
    with writing(engine) as connection:
        rows = connection.execute(query.with_for_update(skip_locked=True)).all()
        endings = [(r, ending_without(r, EXPIRED, Status.EXPIRED)) for r in rows]
        settle(connection, endings, followers, now)
        _count_lost(connection, rows, now)
    return followers


def _count_lost(connection: Connection, rows: Sequence[Any], now: int) -> None:
    for row in rows:
        if row.state == State.RUNNING.value and row.lease_until < now:
            counting.lease_expired(connection, row.lane)


def republish(engine: Engine, *, now: int, stale_before: int, limit: int = 1000) -> Followers:
    """New messages for work that nobody is at: due, expired or unchecked for too long.

    What was lost with its worker goes out one by one, see :func:`claim`; so does what a check began
    with and did not end, see :func:`begin_checks`.
    """
    followers = Followers()
    due = (DECISIONS.c.state == State.QUEUED.value) & (DECISIONS.c.not_before <= now)
    first_time = DECISIONS.c.published_at < DECISIONS.c.not_before
    lost = (DECISIONS.c.state == State.RUNNING.value) & (DECISIONS.c.lease_until < now)
    # Who waits for a critic or a panel is told by each one's settlement.
    children = DECISIONS.alias("children")
    ours = (children.c.id == DECISIONS.c.critic_id) | (children.c.parent_id == DECISIONS.c.id)
    waits = exists().where(ours, children.c.state != State.SETTLED.value)
    unchecked = (DECISIONS.c.state == State.ANSWERED.value) & ~waits
    stale = DECISIONS.c.published_at < stale_before
    names = ("id", "run_id", "lane", "state", "deliveries")
    columns = [DECISIONS.c[name] for name in names]
    found = (due & (first_time | stale)) | (lost & stale) | (unchecked & stale)
    query = (
        select(*columns)
        .where(found)
        .order_by(DECISIONS.c.published_at, DECISIONS.c.id)
        .limit(limit)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    if rows:
        with writing(engine) as connection:
            _republish(connection, rows, followers, now)
    return followers


def _republish(connection: Connection, rows: Sequence[Any], followers: Followers, now: int) -> None:
    together: dict[tuple[str, str], list[Any]] = defaultdict(list)
    alone: list[tuple[tuple[str, str], list[Any]]] = []
    for row in rows:
        checks = row.state == State.ANSWERED.value
        place = (CHECK, QUALITY_QUEUE) if checks else (DECIDE, row.lane)
        if _is_suspect(row):
            alone.append((place, [row]))
        else:
            together[place].append(row)
    for (task, queue), group in [*together.items(), *alone[:ALONE_A_ROUND]]:
        ids, run = [row.id for row in group], outbox.only_run(group)
        followers.messages += outbox.write(connection, task, queue, ids, now, run)
    sent = {i for m in followers.messages for i in m.ids}
    for chunk in chunks(sorted(sent)):
        statement = update(DECISIONS).where(DECISIONS.c.id.in_(chunk))
        connection.execute(statement.values(published_at=now))
        again = (DECISIONS.c.state == State.ANSWERED.value) & (DECISIONS.c.deliveries == 0)
        connection.execute(statement.where(again).values(deliveries=ASKED_AGAIN))


def _is_suspect(row: Any) -> bool:
    if row.state == State.ANSWERED.value:
        return bool(row.deliveries > ASKED_AGAIN)
    return bool(row.state == State.RUNNING.value)


def begin_checks(
    engine: Engine, ids: Sequence[str], limit: int, now: int
) -> tuple[set[str], Followers]:
    """Count checks that were asked for again; those of ``ids`` that may go on, and what follows.

    A decision whose check began ``limit`` times without an outcome ends: its answer may have
    killed each checker.
    """
    followers = Followers()
    with writing(engine) as connection:
        rows = answered_rows(connection, ids)
        poison = [r for r in rows.values() if r.deliveries >= limit + ASKED_AGAIN]
        reason = f"its check began {limit} times without an outcome; its checkers may have died"
        endings = [(r, ending_without(r, reason, Status.DEAD)) for r in poison]
        settle(connection, endings, followers, now)
        going_on = rows.keys() - {r.id for r in poison}
        begun = update(DECISIONS).where(DECISIONS.c.id.in_(going_on), DECISIONS.c.deliveries > 0)
        connection.execute(begun.values(deliveries=DECISIONS.c.deliveries + 1))
    return going_on, followers


def waiting_lanes(engine: Engine) -> set[str]:
    """Lanes on which decisions are queued or running."""
    states = (State.QUEUED.value, State.RUNNING.value)
    query = select(DECISIONS.c.lane).where(DECISIONS.c.state.in_(states)).distinct()
    with reading(engine) as connection:
        return set(connection.execute(query).scalars())


def move_on(
    engine: Engine,
    lane: str,
    usable: Collection[str],
    reason: str,
    now: int,
    *,
    after: str = "",
    limit: int = 200,
) -> tuple[Followers, str]:
    """Let decisions of a lane out of service climb to the next ``usable`` lane of their plans.

    Those that have none stay where they are, for the lane may come back. Looks at ``limit``
    decisions whose ids follow ``after``; with the id to go on from, empty at the end.
    """
    followers = Followers()
    with writing(engine) as connection:
        rows = connection.execute(
            _abandoned(lane, now).where(DECISIONS.c.id > after).limit(limit).with_for_update()
        ).all()
        going = [(row, to) for row in rows if (to := _onward(row, usable)) is not None]
        calls.give_up(connection, [row.id for row, _ in going])
        for row, climb_to in going:
            refusal = Refusal(row.id, Status.DEGRADED, reason, climb_to)
            refuse(connection, row, refusal, followers, now)
    return followers, rows[-1].id if len(rows) == limit else ""


def strand(
    engine: Engine, lane: str, served: Collection[str], now: int, limit: int = 200
) -> Followers:
    """Move decisions on from a lane that nobody serves any more.

    To the next lane of their plan that is served; else they end with their best answer, or
    without one. What a lost worker may have paid for is booked as an unknown charge.
    """
    followers = Followers()
    with writing(engine) as connection:
        rows = connection.execute(_abandoned(lane, now).limit(limit).with_for_update()).all()
        calls.give_up(connection, [row.id for row in rows])
        _count_lost(connection, rows, now)
        for row in rows:
            reason = f"no worker serves {lane}"
            refusal = Refusal(row.id, Status.DEGRADED, reason, _onward(row, served))
            refuse(connection, row, refusal, followers, now)
    return followers


def _abandoned(lane: str, now: int) -> Any:
    """What waits on a lane, or was lost with a worker of it."""
    lost = (DECISIONS.c.state == State.RUNNING.value) & (DECISIONS.c.lease_until < now)
    waits = (DECISIONS.c.state == State.QUEUED.value) | lost
    return select(*DECISIONS.c).where(DECISIONS.c.lane == lane, waits).order_by(DECISIONS.c.id)


def _onward(row: Any, usable: Collection[str]) -> tuple[int, str] | None:
    """The next hop of a decision's plan that can be used."""
    lanes = Plan.model_validate_json(row.plan).lanes
    hops = (hop for hop in range(row.hop + 1, len(lanes)) if lanes[hop] in usable)
    hop = next(hops, None)
    return None if hop is None else (hop, lanes[hop])
