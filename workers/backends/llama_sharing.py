"""Identical questions at once, of whatever messages: one job, and all who ask for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from workers.engine.jobs import Job

Key = tuple[object, ...]


@dataclass(eq=False)
class Question:
    """A job and how many messages wait for it."""

    key: Key
    job: Job
    askers: int = 0


class OpenQuestions:
    """What is asked and not answered yet, by what makes two questions one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Key, Question] = {}

    def ask(
        self, key: Key, deadline: float | None, make: Callable[[], Job]
    ) -> tuple[Question, bool]:
        """Join those who ask the same, or begin; the question, and whether it is new.

        A new one's job is the caller's to hand to the engine, or to fail. It ends when the last
        of its askers would have it end: ``deadline`` is on ``time.monotonic``, ``None`` is never.
        """
        question = self._join(key, deadline)
        if question is not None:
            return question, False
        made = Question(key, make())
        with self._lock:
            joined = self._joined(key, deadline)
            if joined is not None:  # somebody was quicker
                return joined, False
            made.askers, made.job.deadline = 1, deadline
            self._open[key] = made
        made.job.future.add_done_callback(lambda _future: self._forget(made))
        return made, True

    def prolong(self, question: Question, deadline: float | None) -> None:
        """One who waits for it already asks the same again, maybe with more time."""
        with self._lock:
            _prolong(question.job, deadline)

    def leave(self, question: Question) -> None:
        """Wait no longer; a job that nobody waits for is cancelled."""
        with self._lock:
            question.askers -= 1
            if question.askers:
                return
            self._drop(question)
        question.job.future.cancel()

    def _join(self, key: Key, deadline: float | None) -> Question | None:
        with self._lock:
            return self._joined(key, deadline)

    def _joined(self, key: Key, deadline: float | None) -> Question | None:
        found = self._open.get(key)
        if found is None or found.job.future.done():
            return None
        found.askers += 1
        _prolong(found.job, deadline)
        return found

    def _forget(self, question: Question) -> None:
        with self._lock:
            self._drop(question)

    def _drop(self, question: Question) -> None:
        if self._open.get(question.key) is question:
            del self._open[question.key]


def _prolong(job: Job, deadline: float | None) -> None:
    old = job.deadline
    job.deadline = None if old is None or deadline is None else max(old, deadline)
