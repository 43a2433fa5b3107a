"""A running stack's fleet as other processes see it, and waiting for what it was asked."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError

from config.errors import StackError
from config.settings import Settings
from ledger.clock import now
from ledger.database import ledger_error, open_ledger, require_ledger
from ledger.lanes import LaneView, WorkerView, fleet_view
from workers.orders import Answer
from workers.stack_state import StackState, WorkerRecord, WorkerState

POLL_S = 0.1


class FleetStatus(BaseModel):
    """Lanes and supervised processes of all machines, and the cards lent on this one."""

    model_config = ConfigDict(frozen=True)

    lanes: tuple[LaneView, ...]
    workers: tuple[WorkerView, ...]
    lent_cards: tuple[int, ...]


def fleet_status(settings: Settings) -> FleetStatus:
    """How the fleet fares.

    Raises:
        LedgerError: the ledger does not answer, or was not made yet.
    """
    state = StackState.read(settings.stack_dir)
    if state is not None and state.profile != settings.profile:
        settings = settings.model_copy(update={"profile": state.profile})
    require_ledger(settings)
    engine = open_ledger(settings)
    try:
        found = fleet_view(engine, list(settings.catalog.lanes), now())
    except DBAPIError as error:
        raise ledger_error(engine, error) from None
    finally:
        engine.dispose()
    lent = state.lent if state is not None and state.owner.alive() else ()
    return FleetStatus(lanes=found.lanes, workers=found.workers, lent_cards=lent)


def carried_out(settings: Settings, answer: Answer, tell: Callable[[str], None]) -> None:
    """Wait until what was asked is done: until some processes have ended and some workers serve.

    An interruption ends the waiting alone; the stack goes on with it.

    Raises:
        StackError: the stack ended, or a worker was given up.
    """
    said = ""
    while True:
        state = StackState.read(settings.stack_dir)
        if state is None or not state.owner.alive():
            raise StackError("the stack has ended meanwhile: see `uptier status`")
        line = _missing(answer, state.workers)
        if line is None:
            return
        if line != said:
            tell(line)
        said = line
        time.sleep(POLL_S)


def _missing(answer: Answer, workers: tuple[WorkerRecord, ...]) -> str | None:
    """What is still to come, in words; ``None``: nothing."""
    left = [w.name for w in workers if w.process is not None and w.process.pid in answer.leaving]
    if left:
        return f"waiting for {', '.join(left)} to finish"
    by_name = {worker.name: worker for worker in workers}
    for name in answer.coming:
        worker = by_name.get(name)
        if worker is not None and worker.state is WorkerState.FAILED:
            raise StackError(f"{worker.message}; see `uptier fleet status`")
    late = [n for n in answer.coming
            if n not in by_name or by_name[n].state is not WorkerState.READY]  # fmt: skip
    return f"waiting for {', '.join(late)} to serve" if late else None
