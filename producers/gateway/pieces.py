"""The text of an answer as it comes. Only this file knows where it comes from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from config.catalog import OutputType
from config.settings import Settings
from producers.client import Piece
from producers.gateway.gate import Gate
from producers.hub import Ended, Ticket
from routing.decision import Decision
from routing.policy import plan

PIECE_CHARS = 48
"""Characters of a piece of an answer that is there as a whole."""


async def pieces(gate: Gate, ticket: Ticket) -> AsyncIterator[str | Ended]:
    """Text as the model writes it, where no other answer can replace it; last, how it ended.

    Else no text comes before the end: an answer counts once it has passed its check. Nor does any
    after the model had to begin anew; what was told by then is void.

    Raises:
        Fault: it ended without an answer, or not in time.
    """
    ending = asyncio.ensure_future(gate.answer(ticket))
    try:
        first = piece = await _next(ticket, ending) if ticket.is_told else None
        while first and piece and (piece.lane, piece.attempt) == (first.lane, first.attempt):
            yield piece.text
            piece = await _next(ticket, ending)
        yield await ending
    finally:
        ending.cancel()


async def _next(ticket: Ticket, ending: asyncio.Future[Ended]) -> Piece | None:
    """The next piece, or none where the end comes first."""
    coming = asyncio.ensure_future(ticket.pieces.get())
    try:
        await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    finally:
        coming.cancel()


def can_be_told(decision: Decision, settings: Settings) -> bool:
    """Whether a text may be told while it is written: only where its plan has a single lane.

    Raises:
        InputError: it cannot be planned.
    """
    whole = plan(decision, settings.catalog, settings.absent_lanes)
    return decision.output.type is OutputType.TEXT and len(whole.hops) == 1


def left_of(text: str, said: str) -> str | None:
    """What is left to be told of ``text`` after ``said``; ``None`` if that was another text.

    What was told as it came may have blanks at its end that the answer has not.
    """
    if text.startswith(said):
        return text[len(said) :]
    known = said.rstrip()
    return text[len(known) :] if text.startswith(known) else None


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
