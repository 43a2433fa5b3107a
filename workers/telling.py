"""Tells producers of texts as they are written: best effort, and never in a model's way."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kombu.exceptions import OperationalError

from ledger.outbox import new_id
from ledger.records import Claimed, storable

log = logging.getLogger(__name__)

EVERY_S = 0.05
"""Between two messages of a run; what is written meanwhile goes into one."""
MOST_WAITING = 1 << 20
"""Characters that wait for a broker that is slow or away; what comes beyond is not told."""
MOST_CHARS = 1 << 16
"""In one message, or one piece more."""

Send = Callable[[str, Sequence[Mapping[str, Any]]], None]
"""Publishes pieces of one run."""


class Draft:
    """One attempt at a text. Called with its next part, by the thread that writes it."""

    def __init__(self, teller: Teller, claimed: Claimed, lane: str) -> None:
        self._teller = teller
        self.run_id = claimed.run_id
        self.waiting: list[str] = []
        self.told = 0
        """Characters that have left, or were lost: where the next piece begins."""
        self._head = {
            "id": claimed.id,
            "draft": new_id(),
            "hop": claimed.hop,
            "lane": lane,
            "attempt": claimed.tries + 1,
        }

    def __call__(self, text: str) -> None:
        """Have it told soon; returns at once."""
        self._teller.add(self, storable(text))

    def end(self) -> None:
        """Have its rest told at once: whoever listens should hear it before it is settled."""
        self._teller.hurry()

    def piece(self, text: str) -> dict[str, Any]:
        """A part that begins where the last one ended, as it travels."""
        piece = {**self._head, "at": self.told, "text": text}
        self.told += len(text)
        return piece


class Teller:
    """Sends what drafts have to tell, from a thread of its own."""

    def __init__(self, send: Send, every_s: float = EVERY_S) -> None:
        self._send = send
        self._every_s = every_s
        self._news = threading.Condition()
        self._drafts: dict[int, Draft] = {}
        self._waiting = 0
        self._hurry = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def draft(self, claimed: Claimed, lane: str) -> Draft:
        """What hears the text of one attempt."""
        return Draft(self, claimed, lane)

    def add(self, draft: Draft, text: str) -> None:
        """Take the next part of a draft."""
        with self._news:
            if self._stop.is_set():
                return
            if self._waiting + len(text) > MOST_WAITING:
                self._lose(draft, text)
                return
            self._waiting += len(text)
            draft.waiting.append(text)
            self._drafts[id(draft)] = draft
            if self._thread is None:
                self._thread = threading.Thread(target=self._tell, name="telling", daemon=True)
                self._thread.start()
            self._news.notify()

    def hurry(self) -> None:
        """Tell what waits without waiting for more."""
        with self._news:
            self._hurry = bool(self._drafts)
            self._news.notify()

    def close(self) -> None:
        """Tell what waits, and no more."""
        with self._news:
            self._stop.set()
            self._news.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=2)

    def _lose(self, draft: Draft, text: str) -> None:
        """Pass over a part and all that waits of its draft, which nobody can use after a gap."""
        for part in (*draft.waiting, text):
            draft.told += len(part)
        self._waiting -= sum(map(len, draft.waiting))
        draft.waiting.clear()

    def _tell(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._drafts or self._stop.is_set())
                by_run = self._take()
                last = self._stop.is_set()
            for run_id, pieces in by_run.items():
                self._publish(run_id, pieces)
            if last:
                return
            with self._news:
                self._news.wait_for(lambda: self._hurry or self._stop.is_set(), self._every_s)

    def _take(self) -> dict[str, list[dict[str, Any]]]:
        by_run: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for draft in self._drafts.values():
            if draft.waiting:
                by_run[draft.run_id].append(draft.piece("".join(draft.waiting)))
                draft.waiting.clear()
        self._drafts.clear()
        self._waiting, self._hurry = 0, False
        return by_run

    def _publish(self, run_id: str, pieces: list[dict[str, Any]]) -> None:
        batch: list[dict[str, Any]] = []
        for piece in pieces:
            batch.append(piece)
            if sum(len(one["text"]) for one in batch) >= MOST_CHARS or piece is pieces[-1]:
                try:
                    self._send(run_id, batch)
                except (OperationalError, OSError) as error:
                    log.info("pieces of %d texts were not told: %s", len(batch), error)
                batch = []
