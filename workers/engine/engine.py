"""The engine: one thread owns a context and works on all requests at once."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from config.errors import BackendError, DeadlinePassed
from workers.engine.adapters import Adapters
from workers.engine.context import BadBatch, ContextLost, LlamaContext, NoRoom
from workers.engine.jobs import Job
from workers.engine.scheduler import Part, Scheduler
from workers.engine.vocabulary import Vocabulary

log = logging.getLogger(__name__)

RESTARTS = 1
"""How often a job is begun again after a context was lost; then it fails."""


class EngineDied(BackendError):
    """The engine's thread ended by a fault; its worker has to be started anew."""


@dataclass(frozen=True)
class Stats:
    """What an engine did since it started."""

    jobs: int = 0
    passes: int = 0
    rows: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    """Time in forward passes."""
    contexts_lost: int = 0
    adapter_switches: int = 0

    @property
    def prefix_hit_rate(self) -> float:
        """Share of prompt tokens that need not be computed."""
        return self.tokens_cached / self.tokens_in if self.tokens_in else 0.0

    @property
    def rows_per_second(self) -> float:
        """Tokens computed per second of forward passes."""
        return self.rows / self.seconds if self.seconds else 0.0


class Engine:
    """Takes jobs from any thread; each job's future tells what became of it."""

    def __init__(
        self,
        context: LlamaContext,
        adapters: Adapters | None = None,
        on_death: Callable[[], None] = lambda: None,
        *,
        reproducible: bool = False,
    ) -> None:
        self.vocabulary = Vocabulary(context.model)
        # Its thread alone replaces it, whole: whoever reads it has one moment's figures.
        self.stats = Stats()
        self._context = context
        self._adapters = adapters or Adapters(context)
        self._scheduler = Scheduler(context, reproducible=reproducible)
        self._inbox: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._shut = False
        """Whether nothing more may come in; changed only behind the gate."""
        self._freed = False
        self._death: BaseException | None = None
        self._on_death = on_death
        self._thread = threading.Thread(target=self._own, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread still works."""
        return self._death is None and self._thread.is_alive()

    def check_adapter(self, name: str) -> None:
        """Refuse an adapter that has no file; from any thread.

        Raises:
            BackendError: the adapter is unknown, or no more than a name.
        """
        self._adapters.check(name)

    def figures(self) -> dict[str, float]:
        """What it did since it started and where it stands, from any thread.

        Tokens are counts; ``tokens_per_s`` is those computed per second of forward passes, of
        which there were ``busy_s`` seconds; ``prefix_hit_rate`` is a share between 0 and 1.
        """
        stats, scheduler = self.stats, self._scheduler
        return {
            "slots": scheduler.slots,
            "running": len(scheduler.running),
            "waiting": len(scheduler.waiting),
            "jobs": stats.jobs,
            "passes": stats.passes,
            "tokens_computed": stats.rows,
            "tokens_per_s": round(stats.rows_per_second, 1),
            "busy_s": round(stats.seconds, 3),
            "tokens_in": stats.tokens_in,
            "tokens_cached": stats.tokens_cached,
            "tokens_out": stats.tokens_out,
            "prefix_hit_rate": round(stats.prefix_hit_rate, 4),
            "contexts_lost": stats.contexts_lost,
            "adapters_loaded": self._adapters.loaded,
            "adapter_switches": stats.adapter_switches,
        }

    def submit(self, jobs: Iterable[Job]) -> None:
        """Hand jobs over; those that come together are looked at together.

        Raises:
            EngineDied: nobody will work on them.
        """
        with self._gate:
            if self._shut:
                raise EngineDied(f"the engine has ended: {self._death or 'it was closed'}")
            self._inbox.put(list(jobs))

    def close(self) -> None:
        """Finish nothing more; free the model. What was not done fails."""
        self._shut_out()
        self._inbox.put(None)
        self._thread.join(timeout=30)
        if not self._thread.is_alive() and not self._freed:
            self._freed = True
            self.vocabulary.close()
            self._context.free_model()

    def _own(self) -> None:
        try:
            while self._collect():
                self._step()
        except BaseException as error:
            log.exception("the engine died")
            self._death = error
        finally:
            self._end()

    def _shut_out(self) -> None:
        """Let nothing more in: what is in the inbox now is all that there will be."""
        with self._gate:
            self._shut = True

    def _end(self) -> None:
        self._shut_out()
        try:
            self._fail_all(EngineDied(f"the engine has ended: {self._death or 'it was closed'}"))
            self._adapters.close()
            self._context.close()
        finally:
            if self._death is not None:
                self._on_death()

    def _collect(self) -> bool:
        """Take what has come in; waits if there is nothing else to do. False ends the engine."""
        while True:
            try:
                jobs = self._inbox.get(block=self._scheduler.idle)
            except queue.Empty:
                return True
            if jobs is None:
                return False
            self._scheduler.waiting.extend(jobs)
            self._count(jobs=len(jobs))

    def _step(self) -> None:
        scheduler = self._scheduler
        self._drop_unwanted()
        scheduler.admit()
        if not self._select_adapter():
            return
        parts = scheduler.compose()
        if parts:
            self._pass(parts)
        elif scheduler.running or scheduler.waiting:
            # Nothing can be computed and nothing is: only a fault of ours leads here.
            stuck = (scheduler.running or list(scheduler.waiting))[0]
            scheduler.leave(stuck, BackendError("no room was found for the request"))

    def _pass(self, parts: list[Part]) -> None:
        try:
            self._compute(parts)
        except NoRoom:
            self._undo(parts)
            self._relieve(parts)
        except BadBatch as error:
            self._undo(parts)
            self._isolate(parts, error)
        except ContextLost as error:
            self._recover(error)

    def _compute(self, parts: list[Part]) -> None:
        spans = [span for part in parts for span in part.spans]
        started = time.monotonic()
        logits = self._context.decode(spans)
        self._count_pass(parts, time.monotonic() - started)
        self._scheduler.dispatch(parts, logits)

    def _count_pass(self, parts: list[Part], seconds: float) -> None:
        answering = [p.owner for p in parts if isinstance(p.owner, Job) and p.outputs]
        read = [job for job in answering if job.computed == len(job.prompt)]
        self._count(
            passes=1,
            seconds=seconds,
            rows=sum(part.rows for part in parts),
            tokens_in=sum(len(job.prompt) for job in read),
            tokens_cached=sum(job.cached for job in read),
            tokens_out=len(answering),
        )

    def _count(self, **more: float) -> None:
        old = self.stats
        sums = {name: getattr(old, name) + amount for name, amount in more.items()}
        self.stats = replace(old, **sums)

    @staticmethod
    def _undo(parts: list[Part]) -> None:
        """A pass that changed nothing is as if it had not been composed."""
        for part in parts:
            if isinstance(part.owner, Job) and part.spans:
                part.owner.computed = part.spans[0].start

    @staticmethod
    def _redo(parts: list[Part]) -> None:
        """A pass that was undone is composed again as it was."""
        for part in parts:
            if isinstance(part.owner, Job):
                first = part.spans[0]
                part.owner.computed = first.start + len(first.tokens)

    def _relieve(self, parts: list[Part]) -> None:
        """Cells ran out although they were reckoned with: give up prefixes, halve, fail one."""
        if self._scheduler.evict():
            return
        if len(parts) > 1:
            half = parts[: len(parts) // 2]
            self._redo(half)
            self._pass(half)
            return
        self._expel(parts[0], NoRoom("the context had no room for the request"))

    def _isolate(self, parts: list[Part], error: BadBatch) -> None:
        """Find who spoils a batch by asking for each part alone.

        Who finds no room then is not to blame for the batch: it is composed again.
        """
        for part in parts:
            self._redo([part])
            try:
                self._compute([part])
            except BadBatch:
                self._expel(part, error)
            except NoRoom:
                self._undo([part])
                self._scheduler.evict()
            except ContextLost as lost:
                self._recover(lost)
                return

    def _expel(self, part: Part, error: BackendError) -> None:
        if isinstance(part.owner, Job):
            self._scheduler.leave(part.owner, error)
        else:
            self._scheduler.abandon(part.owner, error)

    def _recover(self, error: ContextLost) -> None:
        log.error("%s; the context is made anew", error)
        self._count(contexts_lost=1)
        self._context.reopen()
        for job in self._scheduler.start_over():
            if job.restarts > RESTARTS:
                self._scheduler.leave(job, error)
        self._adapters.forget_current()

    def _drop_unwanted(self) -> None:
        scheduler = self._scheduler
        for job in [*scheduler.running, *scheduler.waiting]:
            if job.future.cancelled():
                scheduler.leave(job)
            elif job.overdue:
                scheduler.leave(job, DeadlinePassed("its deadline passed", retryable=False))

    def _select_adapter(self) -> bool:
        """Have the current adapter in force; jobs whose adapter will not load fail."""
        before = self._adapters.current
        try:
            evicted = self._adapters.use(self._scheduler.adapter)
        except BackendError as error:
            bad = self._scheduler.adapter
            for job in [*self._scheduler.running, *self._scheduler.waiting]:
                if job.adapter == bad:
                    self._scheduler.leave(job, error)
            return False
        if self._adapters.current != before:
            self._count(adapter_switches=1)
        for name in evicted:
            self._scheduler.forget_adapter(name)
        return True

    def _fail_all(self, error: BackendError) -> None:
        left = deque([*self._scheduler.running, *self._scheduler.waiting])
        while not self._inbox.empty():
            left.extend(self._inbox.get() or [])
        for job in left:
            job.settle(error)
