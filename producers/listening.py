"""Hears messages of a broker on a thread of its own, best effort, until it is closed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery
from kombu import Consumer, Exchange, Queue
from kombu.exceptions import OperationalError

from ledger.outbox import new_id

log = logging.getLogger(__name__)

DRAIN_S = 0.5
MOST_MESSAGES = 10_000
"""That RabbitMQ keeps for a listener that is slow; then the oldest go."""


class Listener:
    """Hands every message on an exchange with its run's key to ``hear``, by its thread."""

    def __init__(
        self, app: Celery, exchange: Exchange, run_id: str, hear: Callable[[Any], None]
    ) -> None:
        self._app = app
        self._exchange = exchange
        self._run_id = run_id
        self._hear = hear
        self._closing = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=exchange.name, daemon=True)
        self._thread.start()

    def ready(self, timeout_s: float) -> bool:
        """Wait until it hears; what is sent before is missed. Whether it does by then."""
        return self._listening.wait(timeout_s)

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        self._thread.join(timeout=2 * DRAIN_S)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                self._drain()
            except (OperationalError, OSError) as error:
                log.info("nothing is heard for now: %s", error)
                self._closing.wait(1.0)

    def _drain(self) -> None:
        # On Redis the key narrows the subscription to the run; AMQP fanouts ignore it.
        queue = Queue(
            f"{self._exchange.name}.{new_id()}", self._exchange, self._run_id, durable=False,
            auto_delete=True, exclusive=True, max_length=MOST_MESSAGES,
        )  # fmt: skip
        with self._app.connection_for_read() as connection:
            errors = (*connection.connection_errors, *connection.channel_errors)
            try:
                with Consumer(connection, [queue], callbacks=[self._take], no_ack=True,
                              accept=["json"], on_decode_error=_pass_over):  # fmt: skip
                    self._listening.set()
                    while not self._closing.is_set():
                        try:
                            connection.drain_events(timeout=DRAIN_S)
                        except TimeoutError:
                            continue
            except errors as error:
                raise OperationalError(str(error)) from error

    def _take(self, body: Any, _message: Any) -> None:
        if not isinstance(body, dict) or body.get("run") != self._run_id:
            return
        try:
            self._hear(body)
        except Exception as error:
            _pass_over(body, error)


def _pass_over(_message: Any, error: Exception) -> None:
    """Whoever can write to the broker can send anything; it must not end the listening."""
    log.warning("a message makes no sense: %s", error)
