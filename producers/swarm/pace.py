"""When the daemon may go on: its rate an hour, and the file that stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ledger.clock import SECOND, Clock

HOUR = 3_600 * SECOND
SLICE_S = 1.0
"""How long it sleeps before it looks at the kill file again."""

Sleep = Callable[[float], None]


class Pace:
    """Holds a daemon to so many iterations in any hour, and to its kill file."""

    def __init__(self, per_hour: int | None, kill_file: Path, clock: Clock, sleep: Sleep) -> None:
        self._per_hour = per_hour
        self._kill_file = kill_file
        self._clock = clock
        self._sleep = sleep
        self._moved: dict[int, int] = {}
        """Starts from before the clock was put back, by when that would be as it goes now."""

    def killed(self) -> bool:
        """Whether somebody has laid down the kill file."""
        return self._kill_file.exists()

    def due_at(self, starts: Sequence[int]) -> int:
        """When the next iteration may start, after those that started then; all microseconds."""
        if self._per_hour is None or len(starts) < self._per_hour:
            return 0
        return sorted(starts)[-self._per_hour] + HOUR

    def wait(self, starts: Sequence[int]) -> bool:
        """Sleep until the next iteration is due; ``False`` if the kill file came before that."""
        last = self._clock()
        # What started in the future did so before the clock was put back, by now at the latest.
        self._moved.update({one: last for one in starts if self._moved.get(one, one) > last})

        def left() -> int:
            nonlocal last
            now = self._clock()
            if now < last:  # put back while it sleeps
                self._moved.update({o: self._moved.get(o, o) - (last - now) for o in starts})
            last = now
            return self.due_at([self._moved.get(one, one) for one in starts]) - now

        return self.wait_until(lambda: left() <= 0, lambda: left() / SECOND)

    def wait_until(
        self, holds: Callable[[], bool], left_s: Callable[[], float] = lambda: SLICE_S
    ) -> bool:
        """Sleep until something holds; ``False`` if the kill file came before that."""
        while not self.killed():
            if holds():
                return True
            self._sleep(max(0.001, min(SLICE_S, left_s())))
        return False
