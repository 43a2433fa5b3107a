"""Prints the decisions whose settlement it hears of: `python -m tests.distributed.listener RUN`.

With a decision beside the run it tells those who listen that this one settled, every second.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from config.queues import make_app, notify, settled_exchange
from config.settings import load_settings
from producers.listening import Listener

EVERY_S = 1.0


def main(run: str, decision: str | None = None) -> None:
    """Listen, or tell, until somebody ends it."""
    settings = load_settings()
    assert settings.broker_url is not None
    app = make_app(settings, settings.broker_url)
    if decision is None:
        assert Listener(app, settled_exchange(app), run, _tell).ready(60)
        print("listening", flush=True)
    while True:
        if decision is not None:
            notify(app, [(run, decision)])
        time.sleep(EVERY_S)


def _tell(said: Any) -> None:
    print(*said["ids"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
