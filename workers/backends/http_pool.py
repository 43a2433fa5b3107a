"""Calls of a service side by side, as many at once as the lane has slots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from workers.backends.base import Completion, Request


class SideBySide(ABC):
    """A backend of which each request is one call of its own."""

    def __init__(self, slots: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix=name)

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """All requests side by side, as many at once as the lane has slots."""
        waiting = [self._pool.submit(self._ask, request) for request in requests]
        for done in as_completed(waiting):
            yield done.result()

    def close(self) -> None:
        """Let no further call begin; may be called twice."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @abstractmethod
    def _ask(self, request: Request) -> Completion:
        """One call; whatever goes wrong is in the completion."""
