"""Waits for all decisions of a run, with a bar; what is settled is the ledger's to say."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Engine

from cli.output import bar, err, say
from config.errors import StackError
from ledger.batches import open_count
from ledger.patience import patiently

LOOK_S = 0.05
SHARE = 10
"""A look at a large run takes a while; waiting between two takes so many times as long."""
LINES = 20
"""In a log, which shows no bar."""


def wait_for_all(
    engine: Engine, run_id: str, total: int, failure: Callable[[], str | None]
) -> None:
    """Wait until nothing of a run is open; ``total`` is what the bar calls whole.

    Raises:
        StackError: the workers died for good; the run can be gone on with.
    """
    told = 0
    with bar() as progress:
        task = progress.add_task("deciding", total=total, detail="")
        while True:
            begun = time.monotonic()
            left = patiently(open_count, engine, run_id)
            done = max(0, total - left)
            progress.update(task, completed=done)
            if not err.is_terminal and done - told >= max(1, total // LINES):
                told = done
                say(f"decided {done} of {total}")
            if left == 0:
                return
            why = failure()
            if why is not None:
                raise StackError(why)
            time.sleep(max(LOOK_S, SHARE * (time.monotonic() - begun)))
