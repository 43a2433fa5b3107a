"""The part of a Celery worker that takes messages, less what nothing here uses."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer

from workers.watchers import WatchersStep

log = logging.getLogger(__name__)

BLUEPRINT: Any = Consumer.Blueprint
DELAYED = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


RECONNECT = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3.0}
"""Seconds between tries; Celery's own grow to 30, long after the broker is back."""


EVENTS_EVERY_S = 0.5
"""How long events are gathered: a publication costs the same for one of them as for a hundred."""
EVENTS_AT_ONCE = 500
MOST_CHARS = 80
"""Of the name of a task that is not known."""


class LaneConsumer(Consumer):
    """Celery's consumer, quick to reconnect, with its events in bundles, and without RabbitMQ's
    delayed delivery.

    That declares 28 queues and 28 exchanges outside our prefix for tasks with an ETA; ours wait
    in the ledger (``not_before``). Task events are sent only while somebody watches.

    Messages that are none of Uptier's are dropped and told in a line. Celery's own lines quote the
    whole message, and raw decisions carry their prompts.
    """

    class Blueprint(BLUEPRINT):  # type: ignore[misc]
        """The steps of a consumer."""

        default_steps = [
            *(step for step in BLUEPRINT.default_steps if step != DELAYED),
            WatchersStep,
        ]

    hub: Any
    event_dispatcher: Any
    connection_errors: Any
    _flush_events: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.hub is not None:
            self.hub.timer.call_repeatedly(EVENTS_EVERY_S, self._flush_events)

    def on_send_event_buffered(self) -> Any:
        """An event waits for the next bundle; Celery's own sends it at once, with what has come
        within microseconds."""
        self.event_dispatcher.buffer_limit = EVENTS_AT_ONCE

    def shutdown(self) -> None:
        """End; what has been gathered goes out before."""
        if self.event_dispatcher is not None:
            self.event_dispatcher.flush()
        super().shutdown()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, or go on trying until there is a broker."""
        conn.ensure_connection = partial(conn.ensure_connection, **RECONNECT)
        return super().ensure_connected(conn)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Drop what is no task at all."""
        self._drop(message, "it is no task")

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """Drop a task that this worker does not have."""
        self._drop(message, f"task {str(exc)[:MOST_CHARS]} is not known here")

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """Drop a task that is not put together as Celery does it."""
        self._drop(message, f"it is no sound task ({type(exc).__name__})")

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """Drop what is no JSON."""
        self._drop(message, f"it cannot be read ({type(exc).__name__})")

    def _drop(self, message: Any, why: str) -> None:
        log.error("a message was dropped: %s", why)
        message.reject_log_error(log, self.connection_errors)
