"""How whoever works on a request is told that its answer is no longer wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable


class CancellationToken:
    """Set once and for good, by any thread. Who computes in steps looks at it between them."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether the answer is no longer wanted."""
        return self._event.is_set()

    def set(self) -> None:
        """The answer is no longer wanted; a second time changes nothing."""
        with self._lock:
            self._event.set()
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def on_set(self, call: Callable[[], None]) -> None:
        """Have ``call`` called once it is set, by the thread that sets it; at once if it is."""
        with self._lock:
            if not self._event.is_set():
                self._calls.append(call)
                return
        call()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until it is set; whether it is."""
        return self._event.wait(seconds)
