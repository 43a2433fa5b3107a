"""Keeps leases alive while their work runs, and notices when that is no longer wanted."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ledger import lifecycle
from ledger.clock import SECOND, Clock
from workers.cancellation import CancellationToken

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""At most so long after a cancellation work on it goes on; a look is one query for all."""

Watched = Mapping[str, CancellationToken]
"""By decision, what is set once it is no longer ours to answer."""


class LeaseKeeper:
    """Renews the leases of running work from a thread of its own, three times a lease, and looks
    every second whether all of it is still wanted."""

    def __init__(self, engine: Engine, clock: Clock, lease_s: float) -> None:
        self._engine = engine
        self._clock = clock
        self._lease_us = int(lease_s * SECOND)
        self._held: dict[str, dict[str, CancellationToken]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(lease_s / 3,), name="leases", daemon=True
        )
        self._thread.start()

    @contextmanager
    def keeping(self, token: str, ids: Iterable[str] = ()) -> Iterator[Watched]:
        """Renew ``token`` until the block ends, and watch the decisions ``ids`` held under it."""
        watched = {one: CancellationToken() for one in ids}
        with self._lock:
            self._held[token] = watched
        try:
            yield watched
        finally:
            with self._lock:
                del self._held[token]

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self, renew_s: float) -> None:
        looks = math.ceil(renew_s / LOOK_S)
        while True:
            for _ in range(looks):
                if self._stop.wait(renew_s / looks):
                    return
                self._look()
            self._renew()

    def _look(self) -> None:
        """Tell those who work on decisions that are no longer ours."""
        with self._lock:
            held = dict(self._held)
        watched = {
            one: signal
            for tokens in held.values()
            for one, signal in tokens.items()
            if not signal.is_set()
        }
        if not watched:
            return
        try:
            gone = lifecycle.given_up(self._engine, watched.keys(), held.keys())
        except SQLAlchemyError as error:
            log.warning("not looked at what was cancelled: %s", type(error).__name__)
            return
        for one in gone:
            watched[one].set()

    def _renew(self) -> None:
        with self._lock:
            tokens = list(self._held)
        for token in tokens:
            try:
                lifecycle.renew(self._engine, token, now=self._clock(), lease_us=self._lease_us)
            except SQLAlchemyError as error:
                log.warning("lease %s not renewed: %s", token, error)
