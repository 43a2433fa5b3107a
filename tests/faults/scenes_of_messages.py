"""Messages that vanish, come many times, or are never sent; work that outlasts every timeout."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from config.queues import QUALITY, send
from ledger import lifecycle, outbox
from ledger.clock import now
from ledger.outbox import CHECK, DECIDE, Message, new_id
from ledger.records import Planned
from ledger.rulings import Submission
from routing.decision import Decision
from routing.policy import plan
from tests.faults.scene import Form, scene
from tests.faults.stage import Stage
from workers.launch import process_environment

COPIES = 10
FOUND_WITHIN_S = 20.0


@scene(
    2, "a message deleted in the broker",
    long=Form(rounds=20), short=Form(rounds=2), bound_s=15.0,
)  # fmt: skip
def deleted(stage: Stage) -> None:
    """Recovery: until the decisions that the message named are settled."""
    for number, _ in enumerate(stage.rounds()):
        queue = ("tier1", "tier3")[number % 2]
        kind, word = ("question", "slow") if queue == "tier1" else ("paid", "easy")
        for decision in stage.questions.many(24, kind, word):
            stage.submit([decision])
        since, deadline = time.monotonic(), time.monotonic() + FOUND_WITHIN_S
        stolen = stage.ground.broker.steal(queue)
        while stolen is None and time.monotonic() < deadline:
            stolen = stage.ground.broker.steal(queue)
            since = time.monotonic()
        if stolen is None:
            stage.complain(f"no message ever waited for {queue}")
        stage.recover(stolen or (), since)
        stage.wait(stage.open(), since)


@scene(3, "FLUSHALL in mid-run", long=Form(rounds=20), short=Form(rounds=1), bound_s=15.0)
def flushed(stage: Stage) -> None:
    """Recovery: until all that was open is settled, and a decision asked just after."""
    with stage.load():
        for _ in stage.rounds():
            since = time.monotonic()
            stage.ground.broker.flush()
            stage.recover([*stage.open(), *stage.submit([stage.questions.one()])], since)


@scene(
    7, "work longer than lease and visibility timeout",
    long=Form(rounds=3), short=Form(rounds=1), bound_s=None,
)  # fmt: skip
def longer_than_all(stage: Stage) -> None:
    """Recovery: until it is settled. Its message comes again while it is being answered."""
    for _ in stage.rounds():
        since = time.monotonic()
        ids = stage.submit([stage.questions.one(word="longer than all"), *stage.questions.many(5)])
        # The copy is acknowledged at once, since its claim takes nothing: then nobody holds a
        # message of a decision that is still being answered.
        came_again = held = False
        while stage.open() and time.monotonic() - since < stage.form.patience_s:
            held_now = any(ids[0] in h.ids for h in stage.ground.broker.held())
            came_again |= held and not held_now and stage.is_running(ids[0])
            held |= held_now
            time.sleep(0.1)
        stage.recover(ids, since)
        if not came_again:
            stage.complain("the message did not come again, so nothing was shown")


@scene(
    8, "one message delivered 10 times at once",
    long=Form(rounds=20), short=Form(rounds=2), bound_s=15.0,
)  # fmt: skip
def copied(stage: Stage) -> None:
    """Recovery: until the decisions that the copies named are settled."""
    app = stage.client._app
    for _ in stage.rounds():
        ask = stage.questions
        decisions = [*ask.many(6), *ask.many(2, word="hard"), *ask.many(6, "paid"),
                     *ask.many(3, "paid_once")]  # fmt: skip
        submission = _write(stage, decisions)
        since = time.monotonic()
        with ThreadPoolExecutor(COPIES) as pool:
            for message in submission.messages:
                check = Message(new_id(), CHECK, QUALITY, message.ids)
                for one in [message, check] * COPIES:
                    pool.submit(send, app, one)
        outbox.publish(stage.ground.engine, submission.messages, lambda _: None)
        stage.recover(submission.ids, since)
        for message in submission.messages:
            send(app, Message(new_id(), DECIDE, message.queue, message.ids))


@scene(
    11, "a producer that dies between commit and publishing",
    long=Form(rounds=20), short=Form(rounds=1), bound_s=15.0,
)  # fmt: skip
def never_sent(stage: Stage) -> None:
    """Recovery: from its death until the decisions that it wrote are settled."""
    for _ in stage.rounds():
        before = set(stage.open())
        command = [sys.executable, "-m", "tests.faults.dying_producer", stage.ground.broker_url,
                   stage.run.id, new_id()[-8:]]  # fmt: skip
        done = subprocess.run(
            command, env=process_environment(stage.ground.settings), capture_output=True,
            text=True, check=False, timeout=60,
        )  # fmt: skip
        since = time.monotonic()
        written = set(stage.open()) - before
        if done.returncode != -9 or not written:
            stage.complain(f"the producer wrote {len(written)} decisions and ended with "
                           f"{done.returncode}: {done.stderr[-300:]}")  # fmt: skip
        stage.recover(written, since)


def _write(stage: Stage, decisions: list[Decision]) -> Submission:
    settings = stage.ground.settings
    planned = [Planned(d, plan(d, settings.catalog, settings.absent_lanes)) for d in decisions]
    return lifecycle.submit(stage.ground.engine, stage.run.id, planned, now())
