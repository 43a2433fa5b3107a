"""The text of an answer as it comes. Only this file knows where it comes from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from producers.gateway.gate import Gate
from producers.hub import Ended, Ticket

PIECE_CHARS = 48
"""Characters of a piece of an answer that is there as a whole."""


async def pieces(gate: Gate, ticket: Ticket) -> AsyncIterator[str | Ended]:
    """Text as the model writes it, where no other answer can replace it; last, how it ended.

    Today no text comes before the end: an answer counts once it has passed its check.

    Raises:
        Fault: it ended without an answer, or not in time.
    """
    yield await gate.answer(ticket)


def in_pieces(text: str) -> Iterator[str]:
    """A whole text in pieces that end after blanks; together they are the text."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARS
        if end < len(text):
            blank = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            end = blank + 1 if blank >= start else end
        yield text[start:end]
        start = end
