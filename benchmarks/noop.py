"""The peer of the overhead benchmark: a raw Celery application with a task that does nothing."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("noop", broker=os.environ.get("NOOP_BROKER_URL", "memory://"))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"global_keyprefix": "noop:"},
)


@app.task(name="noop")
def noop(number: int) -> None:
    """Nothing."""
