"""When a process that died is started again, and when it is given up."""

from __future__ import annotations

BACKOFF_MAX_S = 30.0
RESTARTS_MAX = 3
PROVEN_S = 30.0
"""A process that has served for so long has proven itself."""


class Restarts:
    """The restarts of one process: after 1, 2 and 4 s, three in vain at most.

    A restart was not in vain once the process has proven itself, by work done or by having served
    for :data:`PROVEN_S`. Times are in seconds of any clock that only goes forward.
    """

    def __init__(self) -> None:
        self.count = 0
        """Restarts since the stack started."""
        self._in_vain = 0

    def delay(self) -> float | None:
        """Seconds from its death to its next start; ``None`` gives it up."""
        if self._in_vain >= RESTARTS_MAX:
            return None
        return min(2.0**self._in_vain, BACKOFF_MAX_S)

    def restarted(self) -> None:
        """It was started again."""
        self.count += 1
        self._in_vain += 1

    def proven(self) -> None:
        """It does its work: what comes is a new misfortune."""
        self._in_vain = 0
