"""What a stack that crashed left behind: found by its records and removed."""

from __future__ import annotations

from config.settings import Settings
from workers.children import ProcessRecord, end_recorded
from workers.orders import forget_orders
from workers.stack_state import StackState, remove_state
from workers.valkey import left_running, remove_leftovers

GRACE_S = 3.0


def clean_leftovers(settings: Settings) -> int | None:
    """End what runs of a crashed stack and remove its files; the caller holds the lock.

    Returns the number of processes ended, ``None`` if there was nothing to clean.
    """
    directory = settings.stack_dir
    state = StackState.read(directory)
    broker: set[ProcessRecord] = set(filter(None, [left_running(directory / "valkey")]))
    workers: list[ProcessRecord] = []
    if state is not None:
        workers = [worker.process for worker in state.workers if worker.process is not None]
        broker |= set(filter(None, [state.broker]))
    ended = end_recorded(workers, GRACE_S)
    # After the workers, which may have something to acknowledge.
    ended += end_recorded(broker, GRACE_S)
    remove_leftovers(directory / "valkey")
    remove_state(directory)
    forget_orders(directory)
    return None if state is None and not ended else len({record.pid for record in ended})
