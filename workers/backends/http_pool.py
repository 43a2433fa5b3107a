"""Calls of a service side by side, as many at once as the lane has slots."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from config.errors import Cancelled
from workers.backends.base import Completion, Request

log = logging.getLogger(__name__)


class SideBySide(ABC):
    """A backend of which each request is one call of its own."""

    def __init__(self, slots: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix=name)

    def answer(self, requests: Sequence[Request]) -> Generator[Completion]:
        """All requests side by side, as many at once as the lane has slots.

        Once nobody reads on, no further call begins, nor does one that was cancelled. Those that
        have begun are billed whatever happens, so they go on to their end, and the log tells what
        became of them; only a stream of a local server is broken off.
        """
        waiting = [self._pool.submit(self._begin, request) for request in requests]
        unread = set(waiting)
        try:
            for done in as_completed(waiting):
                unread.discard(done)
                yield done.result()
        finally:
            for call in unread:
                if not call.cancel():
                    call.add_done_callback(_tell)

    def close(self) -> None:
        """Let no further call begin; may be called twice."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, request: Request) -> Completion:
        if request.cancelled:
            return Completion(id=request.id, error=Cancelled())
        try:
            return self._ask(request)
        except Cancelled as given_up:
            return Completion(id=request.id, error=given_up)

    @abstractmethod
    def _ask(self, request: Request) -> Completion:
        """One call; whatever goes wrong is in the completion."""


def _tell(call: Future[Completion]) -> None:
    """Put on record what a call came to that nobody waited for."""
    if call.cancelled():
        return
    if (fault := call.exception()) is not None:
        log.warning("a call that nobody waited for raised: %s", fault)
        return
    said = call.result()
    unknown = None if said.error is None else said.error.unknown_charge_micros
    log.warning(
        "request %s: nobody waited for its answer any more; it cost %d micro-dollars, "
        "and %d more may have been charged",
        said.id, said.cost_micros, unknown or 0,
    )  # fmt: skip
