"""Signals held back while a stack starts or stops, so that nothing is left half done."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any, NoReturn, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Holds back Ctrl-C, SIGTERM and the terminal's hang-up of the main thread.

    Inside ``with``, a signal is only noted, and :meth:`check` raises it as ``KeyboardInterrupt``
    where that is safe. After :meth:`release` signals raise at once, until :meth:`hold`. What the
    program itself set for a signal is respected while released, and an ignored signal stays
    ignored. In other threads, which get no signals, nothing happens.
    """

    def __init__(self) -> None:
        self._noted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.hold()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # set outside Python: it cannot be set again
                signal.signal(number, handler)

    def hold(self) -> None:
        """From now on signals are only noted."""
        for number, handler in self._before.items():
            if handler not in (None, signal.SIG_IGN):
                signal.signal(number, self._note)

    def release(self) -> None:
        """From now on signals raise ``KeyboardInterrupt``, at once if one is noted."""
        for number, handler in self._before.items():
            if handler is signal.SIG_DFL:
                signal.signal(number, _interrupt)
            elif handler is not None:
                signal.signal(number, handler)
        self.check()

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if a signal was noted."""
        if self._noted:
            self._noted = False
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        self._noted = True


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
