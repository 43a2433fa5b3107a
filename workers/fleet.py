"""The worker processes of a stack: started, watched, started again, added, ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from config.errors import StackError
from config.queues import QUALITY
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
    """The workers of one stack. One thread watches them; any thread may change or stop them."""

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        spawn: Spawn,
        ready: Ready,
        *,
        start_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        cut_off: Callable[[], bool] = lambda: False,
    ) -> None:
        """``cut_off`` tells whether nobody can become ready, since broker or ledger is away; it may
        take seconds."""
        self._spawn = spawn
        self._ready = ready
        self._cut_off = cut_off
        self._start_timeout_s = start_timeout_s
        self._clock = clock
        self._members = [Member(spec, spawn) for spec in specs]
        self._stopping = False
        self._gate = threading.RLock()  # nothing is spawned once stopping has begun

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
        # Asked before the gate is closed: stopping must not wait for the answer.
        now = self._clock()
        excused = self._anybody_late(now) and self._cut_off()
        with self._gate:
            if self._stopping:
                return False
            before = self.records()
            for member in list(self._members):
                if excused and member.is_late(now, self._start_timeout_s):
                    member.wait_on(now)
                self._look(member, now)
        if any(member.state is WorkerState.STARTING for member in self._members):
            self._note_ready()
        return self.records() != before

    def stop(self) -> None:
        """End every worker: they may finish their running message, within the grace."""
        with self._gate:
            self._stopping = True
            children = [member.child for member in self._members if member.child is not None]
        end_children(children)

    def add(self, spec: WorkerSpec) -> None:
        """Start one worker more."""
        with self._gate:
            if not self._stopping:
                member = Member(spec, self._spawn)
                self._members.append(member)
                member.revive(self._clock())

    def retire(self, names: Collection[str]) -> list[int]:
        """Let workers finish their running messages and go, for good; their process ids."""
        with self._gate:
            leaving = [m for m in self._members if m.spec.name in names]
            pids = [m.child.record.pid for m in leaving
                    if m.child is not None and m.exit_code() is None]  # fmt: skip
            for member in leaving:
                member.retire(self._clock())
        return pids

    def renew(self, name: str) -> None:
        """Start a worker anew, after it has finished its running messages, if it runs."""
        with self._gate:
            for member in self._members:
                if member.spec.name == name and not self._stopping:
                    if member.is_up():
                        member.retire(self._clock(), comes_back=True)
                    else:
                        member.revive(self._clock())

    def condemn(self, token: str, reason: str) -> None:
        """End an instance that is ready and ill."""
        with self._gate:
            for member in self._members:
                if member.token == token and member.state is WorkerState.READY:
                    member.condemn(reason)

    def proven(self, token: str) -> None:
        """An instance has done work."""
        with self._gate:
            for member in self._members:
                if member.token == token:
                    member.proven()

    def staying(self, lane: str) -> list[str]:
        """The workers of a lane, without those that are to go for good."""
        with self._gate:
            return [m.spec.name for m in self._members if m.spec.lane == lane and not m.goes()]

    def tokens(self, *states: WorkerState) -> dict[str, WorkerSpec]:
        """The instances of workers in these states."""
        with self._gate:
            return {m.token: m.spec for m in self._members if m.state in states}

    def records(self) -> tuple[WorkerRecord, ...]:
        """Every worker as other processes may see it."""
        with self._gate:
            return tuple(member.record() for member in self._members)

    def given_up(self) -> dict[str, str]:
        """The lanes of which every worker was given up, each with the reason."""
        with self._gate:
            lanes = {member.spec.lane for member in self._members}
            return {lane: dead[0] for lane in lanes if (dead := self._epitaphs(lane))}

    def failure(self) -> str | None:
        """Why nothing more is answered: nobody checks, or no lane is left; ``None`` while all is
        well, or some lanes go on without others."""
        dead = self.given_up()
        if QUALITY in dead:
            return dead[QUALITY]
        lanes = {m.spec.lane for m in self._members} - {QUALITY}
        return "; ".join(dead.values()) if lanes and lanes <= set(dead) else None

    def _epitaphs(self, lane: str) -> list[str]:
        members = [m for m in self._members if m.spec.lane == lane]
        if any(m.state is not WorkerState.FAILED for m in members):
            return []
        return [m.epitaph() for m in members]

    def _look(self, member: Member, now: float) -> None:
        if member.state is WorkerState.STOPPING:
            if member.leave(now):
                self._members.remove(member)
        elif member.is_up() and member.exit_code() is not None:
            member.died(now)
        elif member.is_late(now, self._start_timeout_s):
            member.give_up_waiting(now, self._start_timeout_s)
        elif member.is_due(now):
            member.restart(now)
        else:
            member.look(now)

    def _anybody_late(self, now: float) -> bool:
        with self._gate:
            return any(m.is_late(now, self._start_timeout_s) for m in self._members)

    def _note_ready(self) -> None:
        tokens = self._ready()
        with self._gate:
            for member in self._members:
                if member.state is WorkerState.STARTING and member.token in tokens:
                    member.served(self._clock())

    def _late(self, waiting: Sequence[Member]) -> str:
        first = waiting[0]
        return (
            f"{', '.join(m.spec.name for m in waiting)} did not become ready within "
            f"{self._start_timeout_s:g} s: {first.last_line()}; see {first.log_path()}, or raise "
            "UPTIER_START_TIMEOUT_S if loading its model takes longer"
        )
