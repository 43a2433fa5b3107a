"""What a stack's supervisor reads from the ledger and writes to it, for all machines to know."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine

from config.settings import Settings
from ledger import lanes, workers
from ledger.clock import now
from ledger.database import open_ledger
from ledger.lanes import Standing
from ledger.workers import Sign
from workers.steward import OFFICE

LONGEST_NAME = 400


class FleetLedger:
    """One supervisor's view. Every method may raise ``DBAPIError`` while the ledger is away."""

    def __init__(self, settings: Settings) -> None:
        self.supervisor = supervisor_of(settings)
        self._engine: Engine = open_ledger(settings)

    def begin(self) -> None:
        """Forget what an earlier life of this stack left; its lanes serve again."""
        lanes.forget_supervisor(self._engine, self.supervisor)

    def end(self) -> None:
        """Leave nothing behind."""
        try:
            lanes.forget_supervisor(self._engine, self.supervisor)
        finally:
            self._engine.dispose()

    def take_out(self, lane: str, standing: Standing, reason: str) -> None:
        """Take a lane out of service."""
        lanes.take_out(self._engine, lane, standing, reason, self.supervisor, now())

    def put_back(self, names: Collection[str]) -> None:
        """Let lanes serve again, whoever took them out."""
        lanes.put_back(self._engine, names)

    def serves_elsewhere(self, lane: str, tokens: Collection[str]) -> bool:
        """Whether others than these instances serve a lane."""
        return lanes.ready_elsewhere(self._engine, lane, tokens, now())

    def open_work(self, lane: str) -> int:
        """Decisions that are due on a lane, queued or running."""
        return lanes.open_work(self._engine, lane, now())

    def waiting(self) -> Mapping[str, int]:
        """Due and queued decisions of each lane, and answers that wait for their check."""
        return lanes.waiting(self._engine, now())

    def signs(self, tokens: Collection[str]) -> dict[str, Sign]:
        """The last signs of life of instances."""
        return workers.signs(self._engine, tokens) if tokens else {}

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tell of the supervised processes."""
        lanes.write_supervised(self._engine, self.supervisor, rows, now())

    def vacate(self, token: str) -> None:
        """Give up the steward's office of an instance that died: the next need not wait for it."""
        workers.leave_office(self._engine, OFFICE, token)


def supervisor_of(settings: Settings) -> str:
    """What the supervisor of a data directory of this machine is called."""
    return f"{socket.gethostname()}:{settings.stack_dir}"[-LONGEST_NAME:]


OpenFleetLedger = Callable[[Settings], FleetLedger]
