"""The part of a Celery worker that takes messages, less what nothing here uses."""

from __future__ import annotations

from functools import partial
from typing import Any

from celery.worker.consumer import Consumer

BLUEPRINT: Any = Consumer.Blueprint
DELAYED = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


RECONNECT = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3.0}
"""Seconds between tries; Celery's own grow to 30, long after the broker is back."""


class LaneConsumer(Consumer):
    """Celery's consumer, quick to reconnect, and without RabbitMQ's delayed delivery.

    That declares 28 queues and 28 exchanges outside our prefix for tasks with an ETA; ours wait
    in the ledger (``not_before``).
    """

    class Blueprint(BLUEPRINT):  # type: ignore[misc]
        """The steps of a consumer."""

        default_steps = [step for step in BLUEPRINT.default_steps if step != DELAYED]

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, or go on trying until there is a broker."""
        conn.ensure_connection = partial(conn.ensure_connection, **RECONNECT)
        return super().ensure_connected(conn)
