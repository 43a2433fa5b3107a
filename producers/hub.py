"""Asks decisions for one event loop: however many wait, two threads serve them all.

One thread submits, all that came in meanwhile at once, and cancels. The other looks into the
ledger, once for all that wait: when notices name some of them, and now and then without one. From
the first text on that is told as it is written, a third one hands on its pieces.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from config.catalog import Catalog
from config.errors import StackError
from ledger.patience import passes, patiently
from ledger.taken import Usage, usages
from producers.client import POLL_S, Client, Piece
from routing.classification import wants_classification
from routing.decision import Decision, Settled

log = logging.getLogger(__name__)

AT_ONCE = 200
"""Decisions of one submission; what is more goes with the next."""
LATE = 10_000
"""Decisions that a poll found, whose notice is still to come and means nothing then."""
CLASSIFYING = 8
"""Submissions that may wait for a classification at a time."""
TELL_S = 0.05
"""How long a piece waits at most that came while nobody listened for its notice."""
CLOSE_S = 10
"""How long closing waits for a ledger that is away."""
CLOSING = "no more is asked: the program is closing"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a decision ended, and what it took."""

    settled: Settled
    usage: Usage


@dataclass(slots=True, eq=False)
class Ticket:
    """A decision that was handed in; ``outcome`` is its end to come."""

    outcome: asyncio.Future[Ended]
    decision: Decision | None = None
    """``None`` for one that was submitted elsewhere."""
    id: str = ""
    """Set once the ledger has it."""
    kept: bool = False
    """Whether it goes on when nobody waits for it any more."""
    pieces: asyncio.Queue[Piece] = field(default_factory=asyncio.Queue)
    """Of its text as it is written, where the decision wishes for them."""

    @property
    def is_told(self) -> bool:
        """Whether its text is told as it is written."""
        return self.decision is not None and self.decision.preferences.stream


class Hub:
    """Submits, awaits and cancels decisions of one client, from the loop that it is made on."""

    def __init__(self, client: Client, catalog: Catalog) -> None:
        self._client = client
        self._catalog = catalog
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._news = threading.Condition(self._lock)
        self._inbox: list[tuple[Ticket, asyncio.Future[None]]] = []
        self._unwanted: set[str] = set()
        self._waiting: dict[str, list[Ticket]] = {}
        self._due: set[str] = set()
        self._told: dict[str, Ticket] = {}
        self._ended: dict[str, None] = {}
        self._closing = False
        self._failure: str | None = None
        self._classifying = ThreadPoolExecutor(CLASSIFYING, thread_name_prefix="classifying")
        client.notices.pass_by(self._hear)
        self._threads: list[threading.Thread] = []
        self._start("hub-submit", self._submitting)
        self._start("hub-look", self._looking)

    @property
    def failure(self) -> str | None:
        """Why nothing more will be answered; ``None`` while all is well. Some 0.5 s old."""
        return self._failure

    @property
    def waiting(self) -> int:
        """How many decisions are awaited."""
        return len(self._waiting)

    async def submit(self, decision: Decision, *, kept: bool = False) -> Ticket:
        """Have a decision written and announced.

        Who is cancelled while waiting for this leaves nothing behind: the decision is cancelled,
        unless it is ``kept``.

        Raises:
            InputError: it cannot be planned.
            StackError: the workers died for good, or the hub is closed.
        """
        ticket = Ticket(self._loop.create_future(), decision, kept=kept)
        written: asyncio.Future[None] = self._loop.create_future()
        if self._failure is not None:
            raise StackError(self._failure)
        if wants_classification(decision, self._catalog):
            self._classifying.submit(self._submit, [(ticket, written)])
        else:
            with self._lock:
                if self._closing:
                    raise StackError(CLOSING)
                self._inbox.append((ticket, written))
                self._work.notify()
        try:
            await written
        except asyncio.CancelledError:
            if ticket.id and not written.cancelled():  # it was written in that very moment
                self.leave(ticket)
            raise
        return ticket

    def watch(self, decision_id: str) -> Ticket:
        """A ticket for a decision that the ledger has already."""
        ticket = Ticket(self._loop.create_future(), id=decision_id, kept=True)
        self._await([ticket], look_now=True)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Nobody waits for it any more: it is cancelled soon, unless it is settled or kept."""
        outcome = ticket.outcome
        settled = outcome.done() and not outcome.cancelled() and outcome.exception() is None
        outcome.cancel()
        if ticket.is_told:
            self._client.hearing().forget(ticket.id)
        with self._lock:
            if self._told.get(ticket.id) is ticket:
                del self._told[ticket.id]
            others = [t for t in self._waiting.get(ticket.id, ()) if t is not ticket]
            if others:
                self._waiting[ticket.id] = others
            else:
                self._waiting.pop(ticket.id, None)
        if not (settled or ticket.kept or others):
            self.cancel([ticket.id])

    def cancel(self, ids: Iterable[str]) -> None:
        """Settle what is open of ``ids`` as cancelled, soon."""
        with self._lock:
            self._unwanted.update(ids)
            self._work.notify()

    def close(self) -> None:
        """Cancel what was left, and end. Who still waits is told that the program is closing."""
        with self._lock:
            self._closing = True
            self._work.notify_all()
            self._news.notify_all()
        self._classifying.shutdown(cancel_futures=True)
        for thread in self._threads:
            thread.join(CLOSE_S)
        self._client.notices.pass_by(lambda ids: ids)

    def _start(self, name: str, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    # The thread that submits and cancels.

    def _submitting(self) -> None:
        while True:
            with self._lock:
                self._work.wait_for(lambda: self._inbox or self._unwanted or self._closing)
                batch, self._inbox = self._inbox[:AT_ONCE], self._inbox[AT_ONCE:]
                unwanted, self._unwanted = self._unwanted, set()
                ends = self._closing and not batch and not unwanted
            if ends:
                return
            self._submit([one for one in batch if not one[1].cancelled()])
            self._cancel(unwanted)

    def _submit(self, batch: Sequence[tuple[Ticket, asyncio.Future[None]]]) -> None:
        if not batch:
            return
        try:
            if any(ticket.is_told for ticket, _ in batch):
                self._listen()
            ids = self._client.submit([t.decision for t, _ in batch if t.decision is not None])
        except Exception as error:
            if len(batch) > 1 and not passes(error):
                for one in batch:  # only one of them is at fault
                    self._submit([one])
                return
            self._call(self._refuse, batch, error)
            return
        for (ticket, _), decision_id in zip(batch, ids, strict=True):
            ticket.id = decision_id
        self._await([ticket for ticket, _ in batch])
        self._call(self._written, batch)

    def _await(self, tickets: Sequence[Ticket], *, look_now: bool = False) -> None:
        ids = {ticket.id for ticket in tickets}
        with self._lock:
            for ticket in tickets:
                self._waiting.setdefault(ticket.id, []).append(ticket)
                if ticket.is_told:
                    self._told[ticket.id] = ticket
        # Those that settled before they were awaited here.
        announced = ids if look_now else self._client.notices.wait(ids, 0)
        if announced:
            self._hear(list(announced))

    def _cancel(self, ids: Collection[str]) -> None:
        if not ids:
            return
        try:
            self._client.cancel(sorted(ids))
        except Exception as error:  # they go on; the next one must be served all the same
            log.warning("%d decisions could not be cancelled: %s", len(ids), error)
        self._hear(list(ids))

    # The thread that looks.

    def _looking(self) -> None:
        next_poll = time.monotonic() + POLL_S
        while True:
            with self._lock:
                left = max(0.0, next_poll - time.monotonic())
                self._news.wait_for(lambda: self._due or self._closing, left)
                due, self._due = self._due, set()
                polls = time.monotonic() >= next_poll
                ids = set(self._waiting) if polls else due & self._waiting.keys()
                if self._closing:
                    break
            if polls:
                next_poll = time.monotonic() + POLL_S
                self._ask_for_failure()
            self._look(ids, due)
        self._fail_all(StackError(CLOSING))

    def _look(self, ids: set[str], due: set[str]) -> None:
        if not ids:
            return
        try:
            found = self._client.look(ids)
            used = patiently(usages, self._client.engine, found, self._catalog)
        except Exception as error:  # the next poll looks again
            log.warning("the ledger cannot be looked at: %s", error)
            return
        with self._lock:
            ended = [(self._waiting.pop(s.id, []), Ended(s, used[s.id])) for s in found]
            self._ended.update((one.id, None) for one in found if one.id not in due)
            while len(self._ended) > LATE:
                del self._ended[next(iter(self._ended))]
        if ended:
            self._call(self._end, [(t, one) for tickets, one in ended for t in tickets])

    def _ask_for_failure(self) -> None:
        try:
            self._failure = self._client.failure()
        except Exception as error:  # it is asked again soon
            log.warning("it cannot be told whether the stack is well: %s", error)
        if self._failure is not None:
            self._fail_all(StackError(self._failure))

    def _fail_all(self, error: StackError) -> None:
        with self._lock:
            lost = [t for tickets in self._waiting.values() for t in tickets]
            self._waiting.clear()
            unsent, self._inbox = self._inbox, []
        self._call(self._lose, lost, error)
        self._call(self._refuse, unsent, error)

    # The thread that hands on pieces.

    def _listen(self) -> None:
        """Subscribe before anything is written that could be missed."""
        self._client.hearing()
        with self._lock:
            if self._closing or any(t.name == "hub-tell" for t in self._threads):
                return
            self._start("hub-tell", self._telling)

    def _telling(self) -> None:
        hearing, news = self._client.hearing(), self._client.notices.news
        while not self._closing:
            with self._lock:
                told = dict(self._told)
            ready = [one for one in told if hearing.has(one)]
            for one in ready:
                self._call(self._say, told[one], hearing.take(one))
            if not ready:
                with news:
                    news.wait(TELL_S if told else POLL_S)

    # The thread that hears notices.

    def _hear(self, ids: Sequence[str]) -> list[str]:
        """Have those looked at that are awaited; the others come back, less what has ended."""
        with self._lock:
            late = self._ended.keys() & set(ids)
            for one in late:
                del self._ended[one]
            ours = self._waiting.keys() & set(ids)
            if ours:
                self._due |= ours
                self._news.notify()
        return [one for one in ids if one not in ours and one not in late]

    # The event loop.

    def _call(self, do: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(do, *arguments)
        except RuntimeError:  # the loop has ended, and everybody on it
            log.debug("nobody is left to be told")

    def _written(self, batch: Sequence[tuple[Ticket, asyncio.Future[None]]]) -> None:
        for ticket, written in batch:
            if written.cancelled():
                self.leave(ticket)
            elif not written.done():
                written.set_result(None)

    def _say(self, ticket: Ticket, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            ticket.pieces.put_nowait(piece)

    def _refuse(
        self, batch: Sequence[tuple[Ticket, asyncio.Future[None]]], error: Exception
    ) -> None:
        for _, written in batch:
            if not written.done():
                written.set_exception(error)

    def _end(self, ended: Sequence[tuple[Ticket, Ended]]) -> None:
        for ticket, end in ended:
            if not ticket.outcome.done():
                ticket.outcome.set_result(end)

    def _lose(self, tickets: Sequence[Ticket], error: Exception) -> None:
        for ticket in tickets:
            if not ticket.outcome.done():
                ticket.outcome.set_exception(error)
