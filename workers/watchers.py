"""Task events cost a message each, so a worker sends them only while somebody watches.

Whoever watches, as Flower does, asks for them every few seconds. Celery would go on for ever once
it was asked; here they end when the asking does, also where a watcher was killed.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import bootsteps
from celery.worker import control

log = logging.getLogger(__name__)

UNWATCHED_AFTER_S = 30.0
"""Flower asks every 5 s."""
LOOK_S = 10.0
GROUP = "task"

_enable = control.Panel.data["enable_events"]


def enable_events(state: Any) -> Any:
    """Tell a worker to send task events for the next half minute."""
    state.consumer.watched_at = time.monotonic()
    return _enable(state)


control.Panel.data["enable_events"] = enable_events


def end_unwatched(consumer: Any, now: float) -> bool:
    """Stop the task events of a worker that nobody asked for a while; whether it did."""
    dispatcher = consumer.event_dispatcher
    if dispatcher is None or GROUP not in dispatcher.groups:
        return False
    if now - getattr(consumer, "watched_at", now) < UNWATCHED_AFTER_S:
        return False
    dispatcher.groups.discard(GROUP)
    log.info("nobody watches any more: task events are off")
    return True


class WatchersStep(bootsteps.StartStopStep):
    """Looks now and then whether events are still wanted."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Begin to look."""
        self._entry = consumer.timer.call_repeatedly(
            LOOK_S, lambda: end_unwatched(consumer, time.monotonic())
        )

    def stop(self, consumer: Any) -> None:
        """Look no more; after a lost connection it is started again."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None
