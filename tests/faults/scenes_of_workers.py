"""Workers that are killed, told to go, stopped, or poisoned."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from sqlalchemy import text

from ledger.database import reading
from tests.faults.ground import LEASE_S, Victim
from tests.faults.scene import Form, scene
from tests.faults.stage import Stage, lease_bound


@scene(
    1, "kill -9 of a random worker under load",
    long=Form(rounds=100), short=Form(rounds=2), bound_s=lease_bound(),
)  # fmt: skip
def killed(stage: Stage) -> None:
    """Recovery: until all that was open at the kill is settled."""
    with stage.load():
        for _ in stage.rounds():
            victim = stage.victim()
            stage.wait_busy(victim.lane)
            since = stage.strike(victim, signal.SIGKILL)
            stage.recover(stage.open(), since)


@scene(
    4, "SIGTERM of a random worker under load",
    long=Form(rounds=50), short=Form(rounds=2), bound_s=lease_bound(),
)  # fmt: skip
def told_to_go(stage: Stage) -> None:
    """Recovery as with kill -9; it ought to be faster, since running messages are finished."""
    with stage.load():
        for _ in stage.rounds():
            victim = stage.victim()
            stage.wait_busy(victim.lane)
            since = stage.strike(victim, signal.SIGTERM)
            stage.recover(stage.open(), since)


@scene(
    12, "a poison decision that kills its worker every time",
    long=Form(rounds=10), short=Form(rounds=1), bound_s=None,
)  # fmt: skip
def poisoned(stage: Stage) -> None:
    """Recovery: until the poison itself is settled; its neighbours must all be answered."""
    for _ in stage.rounds():
        ask = stage.questions
        poison = [ask.one(word="poison"), ask.one(word="poison", mild=False)]
        since = time.monotonic()
        ids = stage.submit([*ask.many(3), poison[0], *ask.many(3), poison[1], *ask.many(3)])
        bad = [ids[3], ids[7]]
        stage.may_end |= set(bad)
        neighbours = stage.wait([i for i in ids if i not in bad], since)
        stage.tell(f"the neighbours were answered after {neighbours:.1f} s")
        stage.recover(bad, since)
        for decision_id, wanted in zip(bad, ("fallback", "dead"), strict=True):
            _require_ending(stage, decision_id, wanted)


@scene(
    13, "a worker stopped past its lease that goes on",
    long=Form(values=(LEASE_S + 2, LEASE_S + 6, LEASE_S + 12) * 5),
    short=Form(values=(LEASE_S + 2.5, LEASE_S + 2.5)), bound_s=lease_bound(),
)  # fmt: skip
def stopped(stage: Stage) -> None:
    """Recovery: until all that was open at the stop is settled, some of it after the stop ended
    where the lane has no other worker."""
    lanes = ("tier3", "tier1", "tier4", "quality", "tier2")
    with stage.load():
        for number, seconds in enumerate(stage.rounds()):
            victim = stage.victim(lanes[number % len(lanes)])
            stage.wait_busy(victim.lane)
            since = stage.strike(victim, signal.SIGSTOP)
            still_open = stage.open()
            time.sleep(seconds)
            _signal(victim, signal.SIGCONT)
            alone = len(stage.ground.victims(lanes=(victim.lane,))) == 1
            took = stage.wait(still_open, since)
            # Nobody else serves the lane: what waited for it could only go on with it.
            stage.outcome.recoveries_s.append(max(0.0, took - seconds) if alone else took)


def _signal(victim: Victim, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim.pid, number)


def _require_ending(stage: Stage, decision_id: str, wanted: str) -> None:
    query = text("SELECT status, reason FROM decision WHERE id = :id")
    with reading(stage.ground.engine) as connection:
        row = connection.execute(query, {"id": decision_id}).one()
    if row.status != wanted or "died" not in row.reason:
        stage.complain(f"a poison decision ended {row.status} ({row.reason}), not {wanted} with "
                       "the reason that its workers died")  # fmt: skip
