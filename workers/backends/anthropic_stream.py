"""A message as it is written, so that one that breaks off still tells what it cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from workers.backends.http_stream import Writing


@dataclass
class Usage:
    """Tokens that were billed: read, read from the cache, written to it, and written."""

    plain: int = 0
    cached: int = 0
    written: int = 0
    out: int = 0

    def note(self, usage: Any) -> None:
        """Take over what a message or an event tells; it counts from the beginning each time."""
        self.plain = _told(usage, "input_tokens", self.plain)
        self.cached = _told(usage, "cache_read_input_tokens", self.cached)
        self.written = _told(usage, "cache_creation_input_tokens", self.written)
        self.out = _told(usage, "output_tokens", self.out)


@dataclass
class Draft:
    """What has come of a message so far."""

    writing: Writing
    usage: Usage = field(default_factory=Usage)
    begun: bool = False
    stop_reason: str | None = None
    """Set by the last event but one; the message is whole then."""

    def read(self, events: Iterable[Any]) -> None:
        """Take every event; whatever reading raises leaves the draft as far as it came."""
        for event in events:
            if event.type == "message_start":
                self.begun = True
                self.usage.note(event.message.usage)
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                self.writing.add(event.delta.text)
            elif event.type == "message_delta":
                self.stop_reason = event.delta.stop_reason
                self.usage.note(event.usage)


def _told(usage: Any, name: str, so_far: int) -> int:
    told = getattr(usage, name, None)
    return so_far if told is None else int(told)
