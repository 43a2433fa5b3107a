"""The worker processes of a stack: started, watched, started again, ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from config.errors import StackError
from workers.children import end_children
from workers.launch import WorkerSpec
from workers.member import Member, Spawn
from workers.stack_state import WorkerRecord, WorkerState

POLL_S = 0.1


Check = Callable[[], None]
"""Called while something is waited for; raises to give up."""
Progress = Callable[[str], None]
"""Told in words how far long work is."""
Ready = Callable[[], set[str]]
"""The tokens of the instances that serve."""


class Fleet:
    """The workers of one stack. One thread watches them; any thread may stop them."""

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        spawn: Spawn,
        ready: Ready,
        *,
        start_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ready = ready
        self._start_timeout_s = start_timeout_s
        self._clock = clock
        self._members = [Member(spec, spawn) for spec in specs]
        self._stopping = False
        self._gate = threading.Lock()  # nothing is spawned once stopping has begun

    def start(self) -> None:
        """Start every worker."""
        for member in self._members:
            with self._gate:
                member.start(self._clock())

    def wait_ready(self, check: Check, progress: Progress) -> None:
        """Wait until every worker serves.

        Raises:
            ConfigurationError: a worker found a setting wrong; its own words.
            StackError: a worker died or was not ready in time; names it and its last line.
        """
        deadline = self._clock() + self._start_timeout_s
        said = ""
        while True:
            check()
            self._note_ready()
            waiting = [m for m in self._members if m.state is not WorkerState.READY]
            for member in waiting:
                if member.exit_code() is not None:
                    member.raise_death()
            if not waiting:
                return
            if self._clock() > deadline:
                raise StackError(self._late(waiting))
            line = f"waiting for {', '.join(m.spec.name for m in waiting)}"
            if line != said:
                progress(line)
            said = line
            time.sleep(POLL_S)

    def watch(self) -> bool:
        """One look at every worker: notes deaths, starts again what is due. True on a change."""
        before = self.records()
        now = self._clock()
        for member in self._members:
            if member.is_up() and member.exit_code() is not None:
                member.died(now)
            elif member.is_late(now, self._start_timeout_s):
                member.give_up_waiting(now, self._start_timeout_s)
            elif member.is_due(now):
                self._restart(member)
        if any(member.state is WorkerState.STARTING for member in self._members):
            self._note_ready()
        return self.records() != before

    def stop(self) -> None:
        """End every worker: they may finish their running message, within the grace."""
        self._stopping = True
        with self._gate:
            children = [member.child for member in self._members if member.child is not None]
        end_children(children)

    def records(self) -> tuple[WorkerRecord, ...]:
        """Every worker as other processes may see it."""
        return tuple(member.record() for member in self._members)

    def failure(self) -> str | None:
        """Which worker was given up, and why; ``None`` while none is."""
        failed = [m for m in self._members if m.state is WorkerState.FAILED]
        return "; ".join(m.epitaph() for m in failed) or None

    def _restart(self, member: Member) -> None:
        with self._gate:
            if not self._stopping:
                member.restart(self._clock())

    def _note_ready(self) -> None:
        tokens = self._ready()
        for member in self._members:
            if member.state is WorkerState.STARTING and member.token in tokens:
                member.served()

    def _late(self, waiting: Sequence[Member]) -> str:
        first = waiting[0]
        return (
            f"{', '.join(m.spec.name for m in waiting)} did not become ready within "
            f"{self._start_timeout_s:g} s: {first.last_line()}; see {first.log_path()}, or raise "
            "UPTIER_START_TIMEOUT_S if loading its model takes longer"
        )
