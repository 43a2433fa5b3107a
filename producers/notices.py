"""Hears which decisions of a run have settled. Best effort: who misses one polls the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from celery import Celery

from config.queues import settled_exchange
from producers.listening import Listener

REMEMBERED = 100_000
"""Announced ids kept for waiters that have not asked for them yet."""


class Notices:
    """Listens on a thread of its own until closed."""

    def __init__(self, app: Celery, run_id: str) -> None:
        self._announced: set[str] = set()
        self._first: Callable[[Sequence[str]], Iterable[str]] = lambda ids: ids
        self.news = threading.Condition()
        """Notified of every announcement; who waits for something beside may share it."""
        self._listener = Listener(app, settled_exchange(app), run_id, self._hear)
        # A notice before the subscription would be missed; a poll makes up for a slow start.
        self._listener.ready(timeout_s=2)

    def wait(self, ids: set[str], timeout_s: float) -> set[str]:
        """Those of ``ids`` that were announced, as soon as there is one, or none in time."""
        with self.news:
            self.news.wait_for(lambda: not self._announced.isdisjoint(ids), max(0.0, timeout_s))
            return self.take(ids)

    def take(self, ids: set[str]) -> set[str]:
        """Those of ``ids`` that were announced by now."""
        with self.news:
            found = self._announced & ids
            self._announced -= found
            return found

    def pass_by(self, first: Callable[[Sequence[str]], Iterable[str]]) -> None:
        """From now on announced ids go by ``first``, on the listening thread; what it gives back
        is kept for :meth:`wait`."""
        self._first = first

    def has(self, decision_id: str) -> bool:
        """Whether a decision was announced."""
        with self.news:
            return decision_id in self._announced

    def forget(self, ids: Iterable[str]) -> None:
        """Drop what was announced of ``ids``: their waiter has found them by itself."""
        with self.news:
            self._announced.difference_update(ids)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _hear(self, body: Any) -> None:
        left = self._first(body["ids"])
        with self.news:
            if len(self._announced) > REMEMBERED:
                self._announced.clear()
            self._announced.update(left)
            self.news.notify_all()
