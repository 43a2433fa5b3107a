"""What the workers of this machine last told of themselves."""

from __future__ import annotations

import json
import socket

from sqlalchemy import select

from config.settings import Settings
from ledger.clock import now
from ledger.database import open_ledger, reading
from ledger.workers import ALIVE_US, WORKERS

Figures = dict[str, float]


def told_figures(settings: Settings) -> dict[int, Figures]:
    """The figures of each worker that is alive on this machine, by its process id.

    Raises:
        UptierError: the ledger does not answer or is of another version.
    """
    engine = open_ledger(settings)
    query = select(WORKERS.c.pid, WORKERS.c.stats).where(
        WORKERS.c.host == socket.gethostname(), WORKERS.c.heartbeat_at > now() - ALIVE_US
    )
    try:
        with reading(engine) as connection:
            return {row.pid: json.loads(row.stats) for row in connection.execute(query)}
    finally:
        engine.dispose()
