"""A text as it is written, told piece by piece: never what a stop or the end could still take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from routing.decision import MAX_ANSWER_CHARS

Hear = Callable[[str], None]
"""Takes the next piece of a text. Called from any thread; it must neither wait nor raise."""


def settled_part(text: str, stops: Sequence[str]) -> str:
    """The beginning of a text that stands, whatever is written next.

    Blanks at either end are no part of an answer, nor is anything from the first stop on. So the
    longest end that may be a stop's beginning is held back, and blanks until something follows.
    What it gives for a text is a beginning of what it gives for any longer one.
    """
    body = text.lstrip()
    end = len(body)
    for stop in stops:
        found = body.find(stop)
        end = min(end, found if found >= 0 else len(body) - _overlap(body, stop))
    return body[:end].rstrip()


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` begin ``stop``."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)


class Pieces:
    """Tells listeners of one text, each from its beginning. Thread-safe.

    Joined, the pieces that a listener heard are the text with which it ended. Should a text turn
    out to be another than was told, no more is told of it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._lock = threading.Lock()
        self._listeners: list[tuple[Hear, int]] = []
        self._told = ""
        self._ended: str | None = None

    @property
    def heard(self) -> bool:
        """Whether anybody listens; if not, there is no need to :meth:`look`."""
        return bool(self._listeners)

    def add(self, hear: Hear) -> None:
        """Let one more listen; what the others have heard, it hears with the next piece."""
        with self._lock:
            if self._ended is None:
                self._listeners.append((hear, 0))
            elif self._ended:
                hear(self._ended)

    def look(self, text: str) -> None:
        """All that is written so far."""
        if not self.heard:
            return
        with self._lock:
            self._tell(settled_part(text, self._stops)[:MAX_ANSWER_CHARS])

    def end(self, raw: str) -> None:
        """The text is whole: ``raw`` is all of it."""
        with self._lock:
            raw = raw[:MAX_ANSWER_CHARS]
            self._tell(raw)
            self._ended, self._listeners = raw, []

    def _tell(self, whole: str) -> None:
        if not whole.startswith(self._told):
            return
        self._told = whole
        for place, (hear, told) in enumerate(self._listeners):
            if told < len(whole):
                hear(whole[told:])
                self._listeners[place] = (hear, len(whole))
