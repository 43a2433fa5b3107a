"""Paid calls: intended on record before they are made, booked after, never silently repeated.

An attempt row with outcome ``intent`` is written, and its most reserved in every budget, before
the provider is called. Whatever becomes of the worker, the row is there: a result turns it into
``answered`` or ``failed``, a lost worker into ``unknown_charge``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, Select, and_, exists, insert, select, update

from config.catalog import Provider
from ledger import budgets, providers
from ledger.budgets import Bound
from ledger.database import reading, writing
from ledger.metrics import counting
from ledger.records import Claimed, Tried, attempt_row, attempt_values
from ledger.rulings import Followers
from ledger.transitions import ATTEMPTS, DECISIONS, after_error, held_rows
from routing.decision import State

INTENT = "intent"
UNKNOWN = "unknown_charge"
LATE = "late"
LOST = "its worker was lost during the call"


@dataclass(frozen=True)
class Intended:
    """A call about to be made: the most it can cost, and the budgets that bear it."""

    id: str
    model: str
    fingerprint: str
    most_micros: int
    bounds: tuple[Bound, ...]
    provider: str | None
    policy: Provider | None


@dataclass(frozen=True)
class Begun:
    """Whether a call may be made: with ``attempt_id`` set it may.

    Else it waits until ``again_at``, is refused for good by a ``budget`` or by an open
    ``breaker`` until ``open_until``, or, with nothing set, is no longer ours.
    """

    attempt_id: str | None = None
    again_at: int | None = None
    slot_at: int | None = None
    budget: str | None = None
    breaker: str | None = None
    open_until: int | None = None


WAIT_FOR_BUDGET_US = 1_000_000


def begin(engine: Engine, token: str, call: Intended, now: int) -> Begun:
    """Reserve and write the intent of one call for a decision held under ``token``."""
    with writing(engine) as connection:
        rows = held_rows(connection, token, [call.id])
        if not rows:
            return Begun()
        ours = [r for r in _intents(connection, [call.id]) if r.token == token]
        if ours:  # the commit went through, its answer was lost
            return Begun(attempt_id=ours[0].id)
        refused = budgets.reserve(connection, call.bounds, call.most_micros)
        if refused is not None and refused.waits:
            return Begun(again_at=now + WAIT_FOR_BUDGET_US, slot_at=rows[0].slot_at)
        if refused is not None:
            return Begun(budget=refused.reason)
        scopes = [bound.scope for bound in call.bounds]
        stopped = _ask_provider(connection, call, rows[0].slot_at, now)
        if stopped is not None:
            budgets.release(connection, scopes, call.most_micros)
            return stopped
        tried = Tried(call.id, call.model, call.fingerprint)
        row = attempt_row(rows[0], tried, now)
        row |= {"outcome": INTENT, "token": token, "scopes": json.dumps(scopes),
                "estimated_micros": call.most_micros}  # fmt: skip
        connection.execute(insert(ATTEMPTS), [row])
        spent = update(DECISIONS).where(DECISIONS.c.id == call.id).values(slot_at=None)
        connection.execute(spent)
        return Begun(attempt_id=row["id"])


def book(connection: Connection, token: str, tried: Sequence[Tried], held: Collection[str]) -> None:
    """Write the results of begun calls, also of those whose decision is no longer ``held``.

    A result that comes after its decision has moved on is ``late``: its answer does not count,
    but what it cost does.
    """
    for one in tried:
        query = select(*ATTEMPTS.c).where(ATTEMPTS.c.id == one.attempt_id).with_for_update()
        row = connection.execute(query).first()
        if row is None or row.token != token or row.outcome not in (INTENT, UNKNOWN):
            continue
        known = one.unknown_charge_micros is None
        if row.outcome == UNKNOWN and not known:
            continue
        values = attempt_values(one)
        if known and one.id not in held:
            values["outcome"] = "failed" if one.error else LATE
            spent = DECISIONS.c.cost_micros + one.cost_micros
            connection.execute(
                update(DECISIONS).where(DECISIONS.c.id == one.id).values(cost_micros=spent)
            )
        connection.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == row.id).values(**values))
        _count(connection, row, values)
        _settle_budgets(connection, row, one)


def _count(connection: Connection, row: Any, values: Mapping[str, Any]) -> None:
    """Count a call that ended, or of which it has become known after all what it cost."""
    if row.outcome == UNKNOWN:
        counting.became_known(connection, row.lane, row.estimated_micros, values)
        return
    counting.attempted(connection, [(row.lane, values)])
    if values["outcome"] == UNKNOWN:
        counting.unknown(connection, row.lane, values["estimated_micros"])


def close_lost(
    engine: Engine,
    token: str,
    claimed: Sequence[Claimed],
    *,
    repeats: bool,
    max_attempts: int,
    lost_call: Callable[[Claimed], Tried],
    now: int,
) -> tuple[list[Claimed], Followers]:
    """Book calls that lost their worker; the decisions that may be asked again, and what follows.

    A call that may have been served is repeated only where the lane ``repeats`` such calls.
    ``lost_call`` is the failure as an attempt, with where its decision goes from there.
    """
    followers = Followers()
    with writing(engine) as connection:
        held = {r.id: r for r in held_rows(connection, token, [c.id for c in claimed])}
        claimed = [c for c in claimed if c.id in held]  # the rest was cancelled or has moved on
        lost = {r.decision_id: r for r in _intents(connection, list(held))}
        if not lost:
            return claimed, followers
        for row in lost.values():
            _to_unknown(connection, row)
        going_on = []
        for one in claimed:
            tries = one.tries + (one.id in lost)
            if one.id not in lost:
                going_on.append(one)
            elif repeats and tries < max_attempts:
                going_on.append(replace(one, tries=tries))
                connection.execute(
                    update(DECISIONS).where(DECISIONS.c.id == one.id).values(tries=tries)
                )
            else:
                after_error(connection, held[one.id], lost_call(one), followers, now)
    return going_on, followers


def close_orphans(engine: Engine, *, now: int, grace_us: int, limit: int = 200) -> int:
    """Book intents of decisions that settled or moved on, whose worker never came back."""
    query = _orphans(now - grace_us).limit(limit)
    with reading(engine) as connection:
        if connection.execute(query.limit(1)).first() is None:
            return 0
    with writing(engine) as connection:
        rows = connection.execute(query.with_for_update()).all()
        for row in rows:
            _mark_unknown(connection, row)
        charges = sorted(
            (scope, row.estimated_micros) for row in rows for scope in json.loads(row.scopes)
        )  # in one order over all rows, so that none deadlock
        for scope, micros in charges:
            budgets.settle(connection, [scope], micros, micros)
    return len(rows)


def _orphans(before: int) -> Select[Any]:
    running = and_(
        DECISIONS.c.id == ATTEMPTS.c.decision_id,
        DECISIONS.c.state == State.RUNNING.value,
    )
    return (
        select(*ATTEMPTS.c)
        .where(
            ATTEMPTS.c.outcome == INTENT,
            ATTEMPTS.c.created_at < before,
            ~exists().where(running),
        )
        .order_by(ATTEMPTS.c.id)
    )


def give_up(connection: Connection, ids: Sequence[str]) -> None:
    """Book open calls of decisions that leave their lane; nobody will come back with a result."""
    for row in sorted(_intents(connection, ids), key=lambda r: str(r.id)):
        _to_unknown(connection, row)


def _ask_provider(
    connection: Connection, call: Intended, slot_at: int | None, now: int
) -> Begun | None:
    if call.provider is None or call.policy is None:
        return None
    asked = providers.admit(connection, call.provider, call.policy, slot_at, now)
    if asked.open_until is not None:
        return Begun(breaker=asked.reason, open_until=asked.open_until)
    if asked.again_at is not None:
        return Begun(again_at=asked.again_at, slot_at=asked.slot_at)
    return None


def _settle_budgets(connection: Connection, row: Any, tried: Tried) -> None:
    """Book what a call cost, in place of what was reserved, or was booked when it was given up."""
    scopes = json.loads(row.scopes)
    most = row.estimated_micros
    unknown = tried.unknown_charge_micros is not None
    was_booked = row.outcome == UNKNOWN
    refused = bool(tried.error) and not unknown and tried.cost_micros == 0
    if refused and was_booked:
        budgets.settle(connection, scopes, 0, -most)
        budgets.release(connection, scopes, 0)
    elif refused:
        budgets.release(connection, scopes, most)
    elif was_booked:
        budgets.settle(connection, scopes, 0, tried.cost_micros - most)
    else:
        budgets.settle(connection, scopes, most, most if unknown else tried.cost_micros)


def _intents(connection: Connection, ids: Sequence[str]) -> list[Any]:
    query = (
        select(*ATTEMPTS.c)
        .where(ATTEMPTS.c.decision_id.in_(ids), ATTEMPTS.c.outcome == INTENT)
        .with_for_update()
    )
    return list(connection.execute(query).all())


def _mark_unknown(connection: Connection, row: Any) -> None:
    values = {"outcome": UNKNOWN, "error": LOST}
    connection.execute(update(ATTEMPTS).where(ATTEMPTS.c.id == row.id).values(**values))
    counting.ended(connection, row.lane, UNKNOWN)
    counting.unknown(connection, row.lane, row.estimated_micros)


def _to_unknown(connection: Connection, row: Any) -> None:
    _mark_unknown(connection, row)
    budgets.settle(connection, json.loads(row.scopes), row.estimated_micros, row.estimated_micros)
