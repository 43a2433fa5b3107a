"""A text as a server writes it: told on at once, and broken off where nobody wants it any more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from config.catalog import Model
from config.errors import Cancelled
from routing.decision import TextOutput
from workers.backends.base import Request
from workers.backends.http_questions import stops
from workers.pieces import Pieces

DATA = "data:"
DONE = "[DONE]"
TORN = "the stream ended before the answer did"


def wants_pieces(request: Request) -> bool:
    """Whether its answer is a text that somebody hears as it is written."""
    return request.on_text is not None and isinstance(request.output, TextOutput)


class Writing:
    """What has come of a text so far, in ``text``."""

    def __init__(self, request: Request, model: Model, *, local: bool) -> None:
        """A stream is only broken off on a server of one's own that takes no money."""
        self.text = ""
        self._request = request
        self._free = local and not (model.price.input or model.price.output)
        self._pieces = Pieces(stops(request))
        if request.on_text is not None and wants_pieces(request):
            self._pieces.add(request.on_text)

    def add(self, more: str) -> None:
        """The next part.

        Raises:
            Cancelled: the answer is no longer wanted, and its server may be left.
        """
        if self._free and self._request.cancelled:
            raise Cancelled
        self.text += more
        self._pieces.look(self.text)

    def end(self, raw: str) -> None:
        """The answer as it is kept."""
        self._pieces.end(raw)


def objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream, one a line or one a server-sent event.

    Raises:
        ValueError: a line is none, or the server says that it failed.
    """
    for line in lines:
        text = line.strip().removeprefix(DATA).strip()
        if text == DONE:
            return
        if not text.startswith(("{", "[")) and not line.startswith(DATA):
            if text and ":" not in text:
                raise ValueError(f"a stream with the line {text[:80]!r}")
            continue  # a blank line, a comment, or the name of an event
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__} instead of an object")
        if "error" in found:
            raise ValueError(f"it broke off: {_said(found['error'])}")
        yield found


def _said(error: object) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)
