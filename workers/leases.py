"""Keeps leases alive while their work runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ledger import lifecycle
from ledger.clock import SECOND, Clock

log = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews the leases of running work from a thread of its own, three times a lease."""

    def __init__(self, engine: Engine, clock: Clock, lease_s: float) -> None:
        self._engine = engine
        self._clock = clock
        self._lease_us = int(lease_s * SECOND)
        self._tokens: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._renew, args=(lease_s / 3,), name="leases", daemon=True
        )
        self._thread.start()

    @contextmanager
    def keeping(self, token: str) -> Iterator[None]:
        """Renew ``token`` until the block ends."""
        with self._lock:
            self._tokens.add(token)
        try:
            yield
        finally:
            with self._lock:
                self._tokens.discard(token)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _renew(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            with self._lock:
                tokens = list(self._tokens)
            for token in tokens:
                try:
                    lifecycle.renew(self._engine, token, now=self._clock(), lease_us=self._lease_us)
                except SQLAlchemyError as error:
                    log.warning("lease %s not renewed: %s", token, error)
