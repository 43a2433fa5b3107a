"""The client: submit decisions, wait for them, get them back in order."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from types import TracebackType
from typing import Self

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from config.errors import StackError
from config.queues import make_app, send
from config.settings import Settings
from ledger import lifecycle, outbox, tracing
from ledger.clock import now
from ledger.database import open_ledger
from ledger.patience import patiently
from ledger.planning import Planner
from ledger.records import Planned
from ledger.runs import RunInfo
from producers.classifying import CLASSIFY_S, classify_first
from producers.notices import REMEMBERED, Notices
from producers.streaming import Hearing
from producers.streaming import Piece as Piece
from routing.decision import CacheScope, Decision, Settled

log = logging.getLogger(__name__)

POLL_S = 0.5
"""How often the ledger is asked although no notice came."""


class Client:
    """Asks decisions of one run. Safe to share between threads.

    ``failure`` is asked now and then while waiting; a text from it ends the wait.
    """

    def __init__(
        self,
        settings: Settings,
        broker_url: str,
        run: RunInfo,
        *,
        cache: CacheScope | None = None,
        failure: Callable[[], str | None] = lambda: None,
    ) -> None:
        tracing.use(settings)
        self._settings = settings
        self._catalog = settings.catalog
        self._run = run
        self._failure = failure
        self._broker_url = broker_url
        self._cache = cache
        self._engine: Engine = open_ledger(settings)
        self._planner = Planner(settings, self._engine, cache=cache)
        self._app: Celery = make_app(settings, broker_url)
        self._notices = Notices(self._app, run.id)
        self._looked: dict[str, float] = {}
        """When open decisions were last looked up, by the monotonic clock."""
        self._hearing: Hearing | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def run(self) -> RunInfo:
        """The run that decisions are asked for."""
        return self._run

    def beside(self, run: RunInfo) -> Client:
        """Another client on the same broker and ledger, for decisions of another run."""
        return Client(
            self._settings, self._broker_url, run, cache=self._cache, failure=self._failure
        )

    def submit(self, decisions: Sequence[Decision], *, run: RunInfo | None = None) -> list[str]:
        """Plan and write decisions, announce them, and return their ids in the given order.

        They belong to the client's run, or to the one given, whose notices it does not hear.

        A decision whose key the run knows is not written again. A broker that is away does not
        matter: the messages stay in the outbox until the steward can send them.
        """
        if not decisions:
            return []
        decisions = self._classified(decisions)
        return self._write(self._planner.plan(decisions), run or self._run)

    def _classified(self, decisions: Sequence[Decision]) -> list[Decision]:
        """The decisions, after the small model has had a look at those that want it."""
        return classify_first(decisions, self._catalog, self._settings.absent_lanes, self._look_at)

    def _look_at(self, questions: Sequence[Planned]) -> list[Settled]:
        found = self._write(questions, self._run)
        return self.wait(found, timeout_s=CLASSIFY_S)

    def _write(self, planned: Sequence[Planned], run: RunInfo) -> list[str]:
        began = now()
        submission = patiently(lambda: lifecycle.submit(self._engine, run.id, planned, now()))
        try:
            outbox.publish(self._engine, submission.messages, lambda m: send(self._app, m))
        except (OperationalError, OSError) as error:
            log.warning("broker away, the steward will publish: %s", error)
        except DBAPIError as error:
            log.warning("ledger away, messages will go out twice: %s", error.orig)
        tracing.submitted(submission.messages, began, now())
        return list(submission.ids)

    def wait(
        self,
        ids: Sequence[str],
        *,
        timeout_s: float | None = None,
        on_settled: Callable[[Sequence[Settled]], None] = lambda _: None,
    ) -> list[Settled]:
        """Settlements of ``ids`` in that order; ``on_settled`` sees them as they come.

        Raises:
            TimeoutError: some are still open after ``timeout_s``; nothing is lost by it.
            StackError: the workers died for good.
        """
        done: dict[str, Settled] = {}
        for found in self._as_they_settle(ids, timeout_s):
            done.update((s.id, s) for s in found)
            on_settled(found)
        return [done[i] for i in ids]

    def wait_some(self, ids: Sequence[str], *, timeout_s: float | None = None) -> list[Settled]:
        """Those of ``ids`` that are settled, as soon as there is one.

        Raises:
            TimeoutError: none is after ``timeout_s``; nothing is lost by it.
            StackError: the workers died for good.
        """
        return next(self._as_they_settle(ids, timeout_s), [])

    def _as_they_settle(
        self, ids: Sequence[str], timeout_s: float | None
    ) -> Iterator[list[Settled]]:
        """What is settled of ``ids``, group by group, until nothing is open."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        open_ids = set(ids)
        while open_ids:
            look_at = self._due(open_ids)
            found = patiently(lifecycle.find_settled, self._engine, look_at) if look_at else []
            if found:
                settled = {s.id for s in found}
                self._forget(settled)
                open_ids -= settled
                yield found
                continue
            self._give_up(deadline, len(open_ids))
            oldest = min(self._looked.get(i, 0.0) for i in open_ids)
            for announced in self._notices.wait(open_ids, oldest + POLL_S - time.monotonic()):
                self._looked.pop(announced, None)

    def _due(self, ids: set[str]) -> set[str]:
        """Those to look up now: announced, never looked up, or not for :data:`POLL_S`. Whoever
        waits for some of many, again and again, does not look all of them up each time."""
        moment = time.monotonic()
        due = self._notices.take(ids)
        due |= {i for i in ids if self._looked.get(i, 0.0) + POLL_S <= moment}
        if len(self._looked) > REMEMBERED:
            self._looked.clear()
        self._looked.update(dict.fromkeys(due, moment))
        return due

    def _forget(self, ids: set[str]) -> None:
        self._notices.forget(ids)
        for one in ids:
            self._looked.pop(one, None)

    def gather(
        self,
        decisions: Sequence[Decision],
        *,
        timeout_s: float | None = None,
        on_settled: Callable[[Sequence[Settled]], None] = lambda _: None,
    ) -> list[Settled]:
        """Submit and wait; settlements in the order of submission."""
        ids = self.submit(decisions)
        return self.wait(ids, timeout_s=timeout_s, on_settled=on_settled)

    def stream(
        self, decision: Decision, *, timeout_s: float | None = None
    ) -> Iterator[Piece | Settled]:
        """Submit a decision, and hear its text as it is written; the settlement comes last.

        Pieces are best effort. Those of one lane and attempt, joined, are the beginning of what it
        wrote; with a piece of another lane or attempt all earlier ones are void. What was lost on
        the way, answers from the cache, choices and JSON come with the settlement alone, whose
        answer is the one that counts. The decision is cancelled where the iterator is closed, or
        interrupted, before its end.

        Raises:
            TimeoutError: it is still open after ``timeout_s``; nothing is lost by it.
            StackError: the workers died for good.
        """
        hearing = self.hearing()
        preferences = decision.preferences.model_copy(update={"stream": True})
        [found] = self.submit([decision.model_copy(update={"preferences": preferences})])
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            yield from self._listen(found, hearing, deadline)
        except (GeneratorExit, KeyboardInterrupt):
            self.cancel([found])
            raise
        finally:
            hearing.forget(found)

    def _listen(
        self, decision_id: str, hearing: Hearing, deadline: float | None
    ) -> Iterator[Piece | Settled]:
        ids, next_poll = {decision_id}, time.monotonic()
        while True:
            yield from hearing.take(decision_id)
            due = time.monotonic() >= next_poll
            if due or self._notices.take(ids):
                settled = patiently(lifecycle.find_settled, self._engine, ids)
                if settled:
                    self._notices.forget(ids)
                    yield from hearing.take(decision_id)
                    yield settled[0]
                    return
                self._give_up(deadline, 1)
                next_poll = time.monotonic() + POLL_S
            self._await_news(decision_id, hearing, max(0.0, next_poll - time.monotonic()))

    def _await_news(self, decision_id: str, hearing: Hearing, timeout_s: float) -> None:
        with self._notices.news:
            self._notices.news.wait_for(
                lambda: self._notices.has(decision_id) or hearing.has(decision_id), timeout_s
            )

    def hearing(self) -> Hearing:
        """What is heard of texts as they are written.

        Pieces are listened to from the first stream on: most producers want none."""
        with self._opening:
            if self._hearing is None:
                self._hearing = Hearing(self._app, self._run.id, self._notices.news)
            return self._hearing

    def cancel(self, ids: Sequence[str] | None = None) -> int:
        """Settle what is still open of ``ids``, or of the whole run, as cancelled; how many."""
        run_id = None if ids is not None else self._run.id
        followers = patiently(lifecycle.cancel, self._engine, now(), run_id=run_id, ids=ids)
        tracing.settled(followers.ended)
        return len(followers.settled)

    def look(self, ids: Collection[str]) -> list[Settled]:
        """Those of ``ids`` that are settled by now."""
        return patiently(lifecycle.find_settled, self._engine, ids)

    @property
    def engine(self) -> Engine:
        """The ledger."""
        return self._engine

    @property
    def notices(self) -> Notices:
        """What is heard of the run's settlements."""
        return self._notices

    def failure(self) -> str | None:
        """Why nothing more will be answered; ``None`` while all is well."""
        return self._failure()

    def classify(self, decisions: Sequence[Decision]) -> list[Decision]:
        """The decisions with what the small model says of them, where they want to be classified.

        :meth:`submit` does it by itself; this is for who goes on to change them.
        """
        return self._classified(decisions)

    async def submit_async(self, decisions: Sequence[Decision]) -> list[str]:
        """:meth:`submit` without blocking the event loop."""
        return await asyncio.to_thread(self.submit, decisions)

    async def wait_async(
        self, ids: Sequence[str], *, timeout_s: float | None = None
    ) -> list[Settled]:
        """:meth:`wait` without blocking the event loop."""
        return await asyncio.to_thread(self.wait, ids, timeout_s=timeout_s)

    async def gather_async(
        self, decisions: Sequence[Decision], *, timeout_s: float | None = None
    ) -> list[Settled]:
        """:meth:`gather` without blocking the event loop."""
        return await asyncio.to_thread(self.gather, decisions, timeout_s=timeout_s)

    def close(self) -> None:
        """End the connections."""
        self._notices.close()
        if self._hearing is not None:
            self._hearing.close()
        self._app.close()
        self._engine.dispose()
        tracing.flush()

    def _give_up(self, deadline: float | None, count: int) -> None:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"{count} decisions are not settled yet; they go on in the ledger")
        failure = self._failure()
        if failure is not None:
            raise StackError(failure)
