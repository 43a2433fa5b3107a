"""A producer that is killed after its commit and before it has published anything.

Arguments: the broker's URL, the run's id, a prefix for keys.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import Any

from config.settings import load_settings
from ledger import outbox
from ledger.database import open_ledger
from ledger.runs import find_run
from producers.client import Client
from tests.faults.load import Questions


def main() -> None:
    """Submit, and die of it."""
    url, run_id, prefix = sys.argv[1:]
    settings = load_settings()
    run = find_run(open_ledger(settings), run_id)
    assert run is not None

    def die(*_: Any, **__: Any) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    outbox.publish = die
    Client(settings, url, run).submit(Questions(prefix, random.Random(prefix)).mixed(20))


if __name__ == "__main__":
    main()
