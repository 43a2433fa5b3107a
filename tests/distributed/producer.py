"""Asks questions at a steady pace and waits for them: `python -m tests.distributed.producer N`.

Prints the run and the decisions that it was given ids for, as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time

from config.settings import load_settings
from ledger.clock import now
from ledger.database import open_ledger
from ledger.runs import start_run
from producers.client import Client
from tests.faults.load import Questions

AT_ONCE = 4
EVERY_S = 0.25
HARD = 5
"""Every so many batches is one that climbs to the second tier."""
PATIENCE_S = 150.0


def main(count: int) -> None:
    """Ask ``count`` questions, and stay until the last is settled."""
    settings = load_settings()
    assert settings.broker_url is not None
    engine = open_ledger(settings)
    run = start_run(engine, mode="faults", profile=settings.profile, now=now())
    engine.dispose()
    questions = Questions(run.id[-8:], random.Random(run.id))
    ids: list[str] = []
    with Client(settings, settings.broker_url, run) as client:
        for number in range(0, count, AT_ONCE):
            word = "hard" if number // AT_ONCE % HARD == 0 else "easy"
            ids += client.submit(questions.many(min(AT_ONCE, count - number), word=word))
            print(f"asked {len(ids)}", file=sys.stderr, flush=True)
            time.sleep(EVERY_S)
        settled = client.wait(ids, timeout_s=PATIENCE_S)
    print(json.dumps({"run": run.id, "ids": ids, "settled": [s.id for s in settled]}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
