"""Hears which decisions of a run have settled. Best effort: who misses one polls the ledger."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from celery import Celery
from kombu import Consumer, Queue
from kombu.exceptions import OperationalError

from config.queues import settled_exchange
from ledger.outbox import new_id

log = logging.getLogger(__name__)

DRAIN_S = 0.5
REMEMBERED = 100_000
"""Announced ids kept for waiters that have not asked for them yet."""


class Notices:
    """Listens on a thread of its own until closed."""

    def __init__(self, app: Celery, run_id: str) -> None:
        self._app = app
        self._run_id = run_id
        self._announced: set[str] = set()
        self._first: Callable[[Sequence[str]], Iterable[str]] = lambda ids: ids
        self._news = threading.Condition()
        self._closing = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="notices", daemon=True)
        self._thread.start()
        # A notice before the subscription would be missed; a poll makes up for a slow start.
        self._listening.wait(timeout=2)

    def wait(self, ids: set[str], timeout_s: float) -> set[str]:
        """Those of ``ids`` that were announced, as soon as there is one, or none in time."""
        with self._news:
            self._news.wait_for(lambda: not self._announced.isdisjoint(ids), timeout_s)
            found = self._announced & ids
            self._announced -= found
            return found

    def pass_by(self, first: Callable[[Sequence[str]], Iterable[str]]) -> None:
        """From now on announced ids go by ``first``, on the listening thread; what it gives back
        is kept for :meth:`wait`."""
        self._first = first

    def forget(self, ids: Iterable[str]) -> None:
        """Drop what was announced of ``ids``: their waiter has found them by itself."""
        with self._news:
            self._announced.difference_update(ids)

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        self._thread.join(timeout=2 * DRAIN_S)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                self._drain()
            except (OperationalError, OSError) as error:
                log.info("no notices for now: %s", error)
                self._closing.wait(1.0)

    def _drain(self) -> None:
        exchange = settled_exchange(self._app)
        name = f"{exchange.name}.{new_id()}"
        # On Redis the key narrows the subscription to the run; AMQP fanouts ignore it.
        queue = Queue(name, exchange, self._run_id, durable=False, auto_delete=True, exclusive=True)
        with self._app.connection_for_read() as connection:
            errors = (*connection.connection_errors, *connection.channel_errors)
            try:
                with Consumer(connection, [queue], callbacks=[self._hear], no_ack=True,
                              accept=["json"]):  # fmt: skip
                    self._listening.set()
                    while not self._closing.is_set():
                        try:
                            connection.drain_events(timeout=DRAIN_S)
                        except TimeoutError:
                            continue
            except errors as error:
                raise OperationalError(str(error)) from error

    def _hear(self, body: Any, _message: Any) -> None:
        if body.get("run") != self._run_id:
            return
        left = self._first(body["ids"])
        with self._news:
            if len(self._announced) > REMEMBERED:
                self._announced.clear()
            self._announced.update(left)
            self._news.notify_all()
