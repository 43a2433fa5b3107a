"""The client: submit decisions, wait for them, get them back in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from config.catalog import Catalog
from config.errors import InputError, StackError
from config.load import AbsentLane
from config.queues import make_app, send
from config.settings import Settings
from ledger import lifecycle, outbox
from ledger.clock import now
from ledger.database import open_ledger
from ledger.lane_history import LaneHistory
from ledger.patience import patiently
from ledger.policies import Policies
from ledger.providers import closed_lanes
from ledger.records import Planned
from ledger.runs import RunInfo
from producers.classifying import CLASSIFY_S, classify_first
from producers.notices import Notices
from routing.decision import CacheScope, Decision, Settled
from routing.policy import plan
from routing.wishes import as_private_as_wished

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
        self._settings = settings
        self._catalog = settings.catalog
        self._run = run
        self._cache = cache
        self._failure = failure
        self._broker_url = broker_url
        self._engine: Engine = open_ledger(settings)
        self._history = LaneHistory(self._engine, self._catalog, now)
        self._policies = Policies(self._engine, now)
        self._app: Celery = make_app(settings, broker_url)
        self._notices = Notices(self._app, run.id)

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

    def submit(self, decisions: Sequence[Decision]) -> list[str]:
        """Plan and write decisions, announce them, and return their ids in the given order.

        A decision whose key the run knows is not written again. A broker that is away does not
        matter: the messages stay in the outbox until the steward can send them.
        """
        if not decisions:
            return []
        decisions = self._classified(decisions)
        closed = patiently(closed_lanes, self._engine, self._catalog, now())
        narrowed = narrow(self._catalog, closed)
        planned = [self._plan(decision, narrowed, closed) for decision in decisions]
        return self._write(planned)

    def _classified(self, decisions: Sequence[Decision]) -> list[Decision]:
        """The decisions, after the small model has had a look at those that want it."""
        return classify_first(decisions, self._catalog, self._settings.absent_lanes, self._look_at)

    def _look_at(self, questions: Sequence[Planned]) -> list[Settled]:
        found = self._write(questions)
        return self.wait(found, timeout_s=CLASSIFY_S)

    def _write(self, planned: Sequence[Planned]) -> list[str]:
        submission = patiently(lambda: lifecycle.submit(self._engine, self._run.id, planned, now()))
        try:
            outbox.publish(self._engine, submission.messages, lambda m: send(self._app, m))
        except (OperationalError, OSError) as error:
            log.warning("broker away, the steward will publish: %s", error)
        except DBAPIError as error:
            log.warning("ledger away, messages will go out twice: %s", error.orig)
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
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        look_at = set(ids)
        next_poll = time.monotonic() + POLL_S
        while True:
            found = patiently(lifecycle.find_settled, self._engine, look_at) if look_at else []
            done.update((s.id, s) for s in found)
            if found:
                on_settled(found)
            open_ids = set(ids) - done.keys()
            if not open_ids:
                self._notices.forget(done)
                return [done[i] for i in ids]
            self._give_up(deadline, len(open_ids))
            announced = self._notices.wait(open_ids, max(0.0, next_poll - time.monotonic()))
            polls = time.monotonic() >= next_poll
            look_at = open_ids if polls else announced
            if polls:
                next_poll = time.monotonic() + POLL_S

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

    def cancel(self, ids: Sequence[str] | None = None) -> int:
        """Settle what is still open of ``ids``, or of the whole run, as cancelled; how many."""
        run_id = None if ids is not None else self._run.id
        followers = patiently(lifecycle.cancel, self._engine, now(), run_id=run_id, ids=ids)
        return len(followers.settled)

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
        self._app.close()
        self._engine.dispose()

    def _plan(
        self, decision: Decision, narrowed: Catalog, closed: Mapping[str, AbsentLane]
    ) -> Planned:
        if self._cache is not None and decision.preferences.cache is CacheScope.SHARED:
            preferences = decision.preferences.model_copy(update={"cache": self._cache})
            decision = decision.model_copy(update={"preferences": preferences})
        catalog, absent = self._catalog, self._settings.absent_lanes
        learned, live = self._history.learned(), self._policies.find()
        decision = as_private_as_wished(decision, catalog)
        if narrowed is not catalog:
            try:
                without = (*absent, *closed.values())
                return Planned(decision, plan(decision, narrowed, without, learned, live))
            except InputError:
                pass  # nothing else may answer it; it waits for the provider
        return Planned(decision, plan(decision, catalog, absent, learned, live))

    def _give_up(self, deadline: float | None, count: int) -> None:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"{count} decisions are not settled yet; they go on in the ledger")
        failure = self._failure()
        if failure is not None:
            raise StackError(failure)


def narrow(catalog: Catalog, closed: Mapping[str, AbsentLane]) -> Catalog:
    """The catalog without closed lanes, or as it is where nothing would be left."""
    if not closed or len(closed) >= len(catalog.lanes):
        return catalog
    lanes = {name: lane for name, lane in catalog.lanes.items() if name not in closed}
    return catalog.model_copy(update={"lanes": lanes})
