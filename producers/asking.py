"""What a producer needs of a client: to ask many decisions and get each one's settlement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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


def gather(asker: Settling, decisions: Sequence[Decision]) -> list[Settled]:
    """Submit all, wait for all; settlements in the order of submission."""
    ids = asker.submit(decisions)
    done: dict[str, Settled] = {}
    while len(done) < len(ids):
        done.update((one.id, one) for one in asker.wait_some([i for i in ids if i not in done]))
    return [done[i] for i in ids]
