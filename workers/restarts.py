"""When a process that died is started again, and when it is given up."""

from __future__ import annotations

from collections import deque

BACKOFF_MAX_S = 30.0
RESTARTS_MAX = 5
RESTART_WINDOW_S = 60.0


class Restarts:
    """The restarts of one process: after 1, 2, 4 ... 30 s, five within a minute at most.

    Becoming ready clears the account. Times are in seconds of any clock that only goes forward.
    """

    def __init__(self) -> None:
        self.count = 0
        """Restarts since the stack started."""
        self._in_vain = 0
        self._at: deque[float] = deque(maxlen=RESTARTS_MAX)

    def delay(self, now: float) -> float | None:
        """Seconds from ``now``, its death, to its next start; ``None`` gives it up."""
        if len(self._at) == RESTARTS_MAX and now - self._at[0] < RESTART_WINDOW_S:
            return None
        return min(2.0**self._in_vain, BACKOFF_MAX_S)

    def restarted(self, now: float) -> None:
        """It was started again at ``now``."""
        self.count += 1
        self._in_vain += 1
        self._at.append(now)

    def ready(self) -> None:
        """It serves."""
        self._in_vain = 0
        self._at.clear()
