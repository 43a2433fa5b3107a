"""What a producer needs of a client: to ask many decisions and get each one's settlement."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from config.errors import UptierError
from routing.decision import Decision, Settled


class Asker(Protocol):
    """Submits decisions and waits for them; see :class:`producers.client.Client`."""

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        """Submit all, wait for all; settlements in the order of submission.

        Decisions whose key the run already knows are not asked again: their old settlement
        comes back.
        """
        ...


class Settling(Protocol):
    """An asker that hands settlements out as they come; see :class:`producers.client.Client`."""

    def submit(self, decisions: Sequence[Decision]) -> list[str]:
        """Ask; the decisions' ids in their order."""
        ...

    def wait_some(self, ids: Sequence[str]) -> list[Settled]:
        """Those of ``ids`` that are settled, as soon as there is one."""
        ...


class Cancelling(Protocol):
    """An asker that can give decisions up; see :class:`producers.client.Client`."""

    def submit(self, decisions: Sequence[Decision]) -> list[str]:
        """Ask; the decisions' ids in their order."""
        ...

    def wait(self, ids: Sequence[str]) -> list[Settled]:
        """Settlements of ``ids`` in that order."""
        ...

    def cancel(self, ids: Sequence[str]) -> int:
        """Settle what is still open of ``ids`` as cancelled; how many."""
        ...


class Left(UptierError):
    """Whoever asked has left before anything was asked for him."""


class Leaving:
    """An asker for somebody who may leave before the answer is there; what was asked for him is
    cancelled then. For threads: one asks, another one leaves."""

    def __init__(self, asker: Cancelling) -> None:
        self._asker = asker
        self._ids: list[str] = []
        self._left = False
        self._lock = threading.Lock()

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        """Submit all, wait for all; settlements in the order of submission.

        Raises:
            Left: he has left already.
        """
        if self._noted([]):
            raise Left("nobody waits for an answer")
        ids = self._asker.submit(decisions)
        if self._noted(ids):  # he left meanwhile
            self._asker.cancel(ids)
        return self._asker.wait(ids)

    def leave(self) -> None:
        """Give up what was asked, and what will be."""
        with self._lock:
            self._left, ids = True, list(self._ids)
        if ids:
            self._asker.cancel(ids)

    def _noted(self, ids: Sequence[str]) -> bool:
        """Keep what was asked for him; whether he has left."""
        with self._lock:
            self._ids += ids
            return self._left


def gather(asker: Settling, decisions: Sequence[Decision]) -> list[Settled]:
    """Submit all, wait for all; settlements in the order of submission."""
    ids = asker.submit(decisions)
    done: dict[str, Settled] = {}
    # A key that stands there twice is one decision.
    while waiting := [i for i in dict.fromkeys(ids) if i not in done]:
        done.update((one.id, one) for one in asker.wait_some(waiting))
    return [done[i] for i in ids]
