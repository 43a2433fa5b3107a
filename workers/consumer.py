"""The part of a Celery worker that takes messages, less what nothing here uses."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer

BLUEPRINT: Any = Consumer.Blueprint
DELAYED = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class LaneConsumer(Consumer):
    """Celery's consumer without RabbitMQ's delayed delivery.

    That declares 28 queues and 28 exchanges outside our prefix for tasks with an ETA; ours wait
    in the ledger (``not_before``).
    """

    class Blueprint(BLUEPRINT):  # type: ignore[misc]
        """The steps of a consumer."""

        default_steps = [step for step in BLUEPRINT.default_steps if step != DELAYED]
