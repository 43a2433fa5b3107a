"""Texts as they are written: pieces that workers tell, put in order, best effort."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from pydantic import BaseModel, Field, ValidationError

from config.queues import pieces_exchange
from producers.listening import Listener
from routing.decision import MAX_ANSWER_CHARS

MOST_TEXTS = 1_000
"""Of which pieces are kept for a reader that has not come yet; the oldest go first."""
MOST_UNREAD = 1 << 16
"""Characters of a text that are kept for its reader."""
READY_S = 2.0
"""How long a first stream waits for its subscription; a slow one only loses pieces."""


@dataclass(frozen=True)
class Piece:
    """The next part of a text that a lane is writing.

    ``attempt`` counts from 1 within its lane. A piece with another lane or attempt than the one
    before begins a new text, and all that was told of the old one is void.
    """

    lane: str
    attempt: int
    text: str


class Told(BaseModel):
    """A piece as it travels; ``at`` is how many characters of its draft were told before."""

    id: str = Field(max_length=64)
    draft: str = Field(max_length=64)
    hop: int = Field(ge=0)
    """Where its lane stands in the plan: what is written later stands there or further on."""
    lane: str = Field(max_length=64)
    attempt: int = Field(ge=1)
    at: int = Field(ge=0, le=MAX_ANSWER_CHARS)
    text: str = Field(min_length=1, max_length=2 * MAX_ANSWER_CHARS)


@dataclass
class Text:
    """What was heard of one decision's text, as far as it can be put together.

    Where a piece was lost, no more of that draft is given: the rest comes with the settlement.
    """

    ready: list[Piece] = field(default_factory=list)
    _unread: int = 0
    _draft: str = ""
    _lane: str = ""
    _attempt: int = 0
    _place: tuple[int, int] = (0, 0)
    _next: int = 0
    _past: set[str] = field(default_factory=set)

    def hear(self, told: Told) -> None:
        """Take one more piece."""
        if told.draft != self._draft and not self._begins(told):
            return
        if told.at != self._next or self._unread > MOST_UNREAD:
            return
        self._unread += len(told.text)
        self._next += len(told.text)
        self.ready.append(Piece(self._lane, self._attempt, told.text))

    def take(self) -> list[Piece]:
        """What is ready, once."""
        found, self.ready, self._unread = self.ready, [], 0
        return found

    def _begins(self, told: Told) -> bool:
        """Begin a newer draft; false for what comes late of an older one."""
        if told.draft in self._past or (told.hop, told.attempt) < self._place:
            return False  # of a worker that was thought to be lost, or of an earlier attempt
        self._begin(told)
        return True

    def _begin(self, told: Told) -> None:
        self._past.add(self._draft)
        self._place = (told.hop, told.attempt)
        again = told.lane == self._lane and told.attempt <= self._attempt
        # A text that was lost with its worker is begun anew under the same number.
        self._attempt = self._attempt + 1 if again else told.attempt
        self._draft, self._lane, self._next = told.draft, told.lane, 0


class Hearing:
    """Listens to the pieces of a run. Safe to share between threads."""

    def __init__(self, app: Celery, run_id: str, news: threading.Condition) -> None:
        """``news`` is notified of every piece."""
        self._news = news
        self._texts: OrderedDict[str, Text] = OrderedDict()
        self._listener = Listener(app, pieces_exchange(app), run_id, self._hear)
        self._listener.ready(READY_S)

    def has(self, decision_id: str) -> bool:
        """Whether there are pieces of a text that nobody has taken."""
        with self._news:
            text = self._texts.get(decision_id)
            return text is not None and bool(text.ready)

    def take(self, decision_id: str) -> list[Piece]:
        """The pieces that have come since the last time."""
        with self._news:
            text = self._texts.get(decision_id)
            return [] if text is None else text.take()

    def forget(self, decision_id: str) -> None:
        """Nobody reads this text any more."""
        with self._news:
            self._texts.pop(decision_id, None)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _hear(self, body: Any) -> None:
        pieces = body.get("pieces")
        with self._news:
            for raw in pieces if isinstance(pieces, list) else ():
                try:
                    told = Told.model_validate(raw)
                except ValidationError:
                    continue  # whoever can write to the broker can send anything
                self._texts.setdefault(told.id, Text()).hear(told)
                self._texts.move_to_end(told.id)
                while len(self._texts) > MOST_TEXTS:
                    self._texts.popitem(last=False)
            self._news.notify_all()
