"""Every state change of a decision. Each function is one transaction over many decisions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Engine,
    bindparam,
    case,
    insert,
    not_,
    select,
    update,
)

from ledger import calls, labels, outbox, providers
from ledger.beside import ask, ask_beside
from ledger.database import reading, writing
from ledger.metrics import counting
from ledger.outbox import CHECK
from ledger.providers import Health
from ledger.records import (
    Claimed,
    Hit,
    Planned,
    Tried,
    attempt_row,
    claimed,
    decision_row,
    settled,
)
from ledger.rulings import Followers, Refusal, Ruling, Settlement, Submission
from ledger.transitions import (
    ATTEMPTS,
    DECISIONS,
    IDS,
    OPEN,
    QUALITY_QUEUE,
    after_error,
    answered_rows,
    best_ending,
    chunks,
    climb,
    end_questions,
    ending_without,
    held_rows,
    insert_new,
    mark_answered,
    put_off,
    refuse,
    settle,
    systems_of,
    write_verdicts,
)
from routing.decision import Settled, State, Status


def submit(engine: Engine, run_id: str, planned: Sequence[Planned], now: int) -> Submission:
    """Write decisions that the run does not know yet, and their messages.

    A key that the run knows already keeps its old decision; its id comes back.
    """
    rows = [decision_row(run_id, item, now) for item in planned]
    with writing(engine) as connection:
        return insert_new(connection, run_id, planned, rows, now)


def claim(
    engine: Engine, lane: str, ids: Sequence[str], *, token: str, now: int, lease_us: int
) -> list[Claimed]:
    """Take those of ``ids`` that wait on ``lane``, in the order of submission.

    Whoever holds ``token`` may write to them until ``now + lease_us``. What another worker
    holds, has answered or has settled is left out. A decision that was delivered before without
    an outcome may have killed its worker: it is only taken alone, so that its neighbours do not
    die with it.
    """
    values = {"now": now, "token": token, "until": now + lease_us}
    rows: list[Any] = []
    with writing(engine) as connection:
        statement = _claiming(connection.dialect.name == "postgresql", alone=len(ids) == 1)
        for chunk in chunks(ids):
            wanted = {"ids": chunk, "on_lane": lane, **values}
            rows += connection.execute(statement, wanted).all()
        for row in rows:
            if row.deliveries > 1:  # an earlier claim of it came to nothing
                counting.lease_expired(connection, row.lane)
        systems = systems_of(connection, {r.prefix_id for r in rows if r.prefix_id})
    rows.sort(key=lambda r: r.id)
    return [claimed(r, systems) for r in rows]


@cache
def _claiming(skips_locked: bool, *, alone: bool) -> Any:
    """Takes what is to be had; nobody waits for another's claim where rows can be skipped."""
    # What is ours already: an earlier try's commit went through, its answer was lost.
    mine = (DECISIONS.c.state == State.RUNNING.value) & (
        DECISIONS.c.lease_token == bindparam("token")
    )
    on_lane = DECISIONS.c.id.in_(IDS) & (DECISIONS.c.lane == bindparam("on_lane"))
    wanted: ColumnElement[bool] = on_lane & (_to_be_had(alone=alone) | mine)
    if skips_locked:
        free = select(DECISIONS.c.id).where(wanted).with_for_update(skip_locked=True)
        wanted = DECISIONS.c.id.in_(free)
    once_more = case((mine, DECISIONS.c.deliveries), else_=DECISIONS.c.deliveries + 1)
    return (
        update(DECISIONS)
        .where(wanted)
        .values(
            state=State.RUNNING.value,
            lease_token=bindparam("token"),
            lease_until=bindparam("until"),
            deliveries=once_more,
        )
        .returning(*DECISIONS.c)
    )


def _to_be_had(*, alone: bool) -> ColumnElement[bool]:
    now: BindParameter[int] = bindparam("now")
    free = (DECISIONS.c.state == State.QUEUED.value) & (DECISIONS.c.not_before <= now)
    lost = (DECISIONS.c.state == State.RUNNING.value) & (DECISIONS.c.lease_until < now)
    return (free | lost) if alone else (free & (DECISIONS.c.deliveries == 0))


def is_suspect(engine: Engine, decision_id: str, now: int) -> bool:
    """Whether a decision was lost with the worker that had it."""
    query = select(DECISIONS.c.id).where(
        DECISIONS.c.id == decision_id,
        DECISIONS.c.state == State.RUNNING.value,
        DECISIONS.c.lease_until < now,
    )
    with reading(engine) as connection:
        return connection.execute(query).first() is not None


def renew(engine: Engine, token: str, *, now: int, lease_us: int) -> int:
    """Lengthen the lease of all decisions held under ``token``; returns how many."""
    with writing(engine) as connection:
        held = (DECISIONS.c.lease_token == token) & (DECISIONS.c.state == State.RUNNING.value)
        ids = select(DECISIONS.c.id).where(held)
        if connection.dialect.name == "postgresql":
            ids = ids.order_by(DECISIONS.c.id).with_for_update()  # in the order of all others
        statement = (
            update(DECISIONS).where(DECISIONS.c.id.in_(ids)).values(lease_until=now + lease_us)
        )
        return connection.execute(statement).rowcount


def given_up(engine: Engine, ids: Collection[str], tokens: Collection[str]) -> set[str]:
    """Those of ``ids`` that are no longer held under any of ``tokens``: cancelled, settled by
    somebody else, lost to another worker, or through."""
    held = (DECISIONS.c.state == State.RUNNING.value) & DECISIONS.c.lease_token.in_(tokens)
    found: set[str] = set()
    with reading(engine) as connection:
        for chunk in chunks(list(ids)):
            query = select(DECISIONS.c.id).where(DECISIONS.c.id.in_(chunk), not_(held))
            found.update(connection.execute(query).scalars())
    return found


def record(
    engine: Engine,
    token: str,
    tried: Sequence[Tried],
    now: int,
    health: Sequence[Health] = (),
) -> Followers:
    """Write attempts of decisions still held under ``token``; others are dropped.

    An answer goes to the quality check; a failure waits for its next try, or, without
    ``again_at``, takes the next lane of its plan or ends. Paid calls are booked in any case, and
    so is what they say of their provider.
    """
    followers = Followers()
    with writing(engine) as connection:
        held = {r.id: r for r in held_rows(connection, token, [t.id for t in tried])}
        ours = [t for t in tried if t.id in held]
        fresh = [attempt_row(held[t.id], t, now) for t in ours if t.attempt_id is None]
        if fresh:
            connection.execute(insert(ATTEMPTS), fresh)
        counting.attempted(connection, [(row["lane"], row) for row in fresh])
        calls.book(connection, token, [t for t in tried if t.attempt_id is not None], held)
        for one in health:
            providers.note(connection, one, now)
        answered = [t for t in ours if not t.error]
        mark_answered(connection, answered)
        ids, run = [t.id for t in answered], outbox.only_run(held[t.id] for t in answered)
        followers.messages += outbox.write(connection, CHECK, QUALITY_QUEUE, ids, now, run)
        for attempt in ours:
            if attempt.error:
                after_error(connection, held[attempt.id], attempt, followers, now)
    return followers


def turn_away(engine: Engine, token: str, refusals: Sequence[Refusal], now: int) -> Followers:
    """Move held decisions on from a lane that may not be called for them."""
    followers = Followers()
    with writing(engine) as connection:
        held = {r.id: r for r in held_rows(connection, token, [r.id for r in refusals])}
        for refusal in refusals:
            if refusal.id in held:
                refuse(connection, held[refusal.id], refusal, followers, now)
    return followers


def wait_until(
    engine: Engine, token: str, decision_id: str, again_at: int, slot_at: int | None
) -> None:
    """Give a held decision back to its lane's queue until ``again_at``; it counts as no try."""
    with writing(engine) as connection:
        if held_rows(connection, token, [decision_id]):
            put_off(connection, decision_id, again_at, slot_at)


def cancel(
    engine: Engine,
    now: int,
    *,
    run_id: str | None = None,
    ids: Sequence[str] | None = None,
    reason: str = "cancelled by its asker",
) -> Followers:
    """Settle what is still open of a run, or of ``ids`` and their critics, as ``cancelled``.

    A worker that is at one of them soon notices (:func:`given_up`): it stops what is its own to
    stop. A paid call goes on to its end, and what it cost is booked all the same.
    """
    followers = Followers()
    for chunk in [None] if ids is None else chunks(ids):
        mine = (
            (DECISIONS.c.run_id == run_id)
            if chunk is None
            else DECISIONS.c.id.in_(chunk) | DECISIONS.c.parent_id.in_(chunk)
        )
        with writing(engine) as connection:
            rows = connection.execute(_open_ones(mine)).all()
            endings = [(r, ending_without(r, reason, Status.CANCELLED)) for r in rows]
            settle(connection, endings, followers, now)
    return followers


def _open_ones(among: ColumnElement[bool]) -> Any:
    return (
        select(*DECISIONS.c)
        .where(among, DECISIONS.c.state.in_(OPEN))
        .order_by(DECISIONS.c.id)
        .with_for_update()
    )


def settle_cached(engine: Engine, token: str, hits: Sequence[Hit], now: int) -> Followers:
    """Settle held decisions with answers from the cache."""
    followers = Followers()
    with writing(engine) as connection:
        held = {r.id: r for r in held_rows(connection, token, [h.id for h in hits])}
        hits = [h for h in hits if h.id in held]
        endings = [
            (held[h.id], Settlement(h.status, h.answer, h.lane, h.reason, h.p_answer)) for h in hits
        ]
        settle(connection, endings, followers, now)
        for hit in hits:
            counting.served(connection, held[hit.id].kind, hit.layer)
    return followers


def bury(
    engine: Engine, token: str, ids: Sequence[str], reason: str, now: int, status: Status
) -> Followers:
    """Settle held decisions that cannot be answered: with their fallback, if they have one."""
    followers = Followers()
    with writing(engine) as connection:
        rows = held_rows(connection, token, ids)
        settle(connection, [(r, ending_without(r, reason, status)) for r in rows], followers, now)
    return followers


def rule(engine: Engine, rulings: Sequence[Ruling], now: int) -> Followers:
    """Write verdicts and what follows; decisions that have moved on meanwhile are left alone."""
    followers = Followers()
    with writing(engine) as connection:
        stands = answered_rows(connection, [r.id for r in rulings])
        live = [r for r in rulings if r.id in stands and stands[r.id].hop == r.hop]
        if not live:
            return followers
        write_verdicts(connection, live)
        # Whoever asks first is ruled on again.
        counting.checked(connection, [(stands[r.id], r.passed) for r in live if not r.questions])
        endings = [(stands[r.id], r.settle) for r in live if r.settle is not None]
        endings += [
            (stands[r.id], best_ending(connection, stands[r.id], r.degrade))
            for r in live
            if r.degrade is not None
        ]
        settle(connection, endings, followers, now)
        end_questions(connection, [stands[r.id] for r in live if r.climb_to], now)
        climbs = [(stands[r.id], *r.climb_to) for r in live if r.climb_to]
        climb(connection, climbs, followers, now)
        for row, _, lane in climbs:
            counting.escalated(connection, row.lane, lane)
        labels.from_top(connection, [(stands[r.id], a) for r in live if (a := r.top_answer)], now)
        for ruling in live:
            row = stands[ruling.id]
            if ruling.questions:
                ask(connection, row, ruling.questions, followers, now)
            if ruling.audit is not None and row.held_status is None:
                ask_beside(connection, row.run_id, [ruling.audit], followers, now)
    return followers


_SETTLED = select(
    *(
        DECISIONS.c[name]
        for name in (
            "id", "key", "kind", "status", "answer", "answer_lane", "reason", "cost_micros",
            "climbs", "p_answer",
        )
    )
).where(DECISIONS.c.id.in_(IDS), DECISIONS.c.state == State.SETTLED.value)  # fmt: skip


def find_settled(engine: Engine, ids: Iterable[str]) -> list[Settled]:
    """Those of ``ids`` that are settled."""
    found: list[Settled] = []
    with reading(engine) as connection:
        for chunk in chunks(list(ids)):
            found += [settled(r) for r in connection.execute(_SETTLED, {"ids": chunk})]
    return found
