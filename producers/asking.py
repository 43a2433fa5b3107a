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
