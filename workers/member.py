"""A worker over all its instances: its state, its deaths, its next start."""

from __future__ import annotations

import logging
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from config.errors import ConfigurationError, StackError
from workers.children import Child
from workers.launch import WorkerSpec
from workers.restarts import Restarts
from workers.stack_state import WorkerRecord, WorkerState

log = logging.getLogger(__name__)

Spawn = Callable[[WorkerSpec, str], Child]
"""Starts a worker as the instance that the token names."""


class Member:
    """A worker over all its instances."""

    def __init__(self, spec: WorkerSpec, spawn: Spawn) -> None:
        self.spec = spec
        self.state = WorkerState.STARTING
        self.child: Child | None = None
        self.token = ""
        self.message: str | None = None
        self._spawn = spawn
        self._restarts = Restarts()
        self._started = 0.0
        self._due = 0.0

    def start(self, now: float) -> None:
        """Start a new instance."""
        if self.child is not None:
            self.child.kill()  # it has ended; this closes its pipe
        self.token = uuid.uuid4().hex
        self.child = self._spawn(self.spec, self.token)
        self.state = WorkerState.STARTING
        self._started = now

    def restart(self, now: float) -> None:
        """Start it again after a death."""
        self._restarts.restarted(now)
        try:
            self.start(now)
        except OSError as error:  # no memory or no process id left: that may pass
            self._schedule(f"{self.spec.name} could not be started: {error.strerror}", now)

    def served(self) -> None:
        """It became ready."""
        self.state = WorkerState.READY
        self._restarts.ready()

    def died(self, now: float) -> None:
        """Note a death; a wrong setting does not mend itself, anything else is tried again."""
        code, message = self.exit_code(), self.death()
        if code == ConfigurationError.exit_code:
            self.state, self.message = WorkerState.FAILED, message
            log.error("%s; it is not started again", message)
        else:
            self._schedule(message, now)

    def give_up_waiting(self, now: float, timeout_s: float) -> None:
        """End an instance that did not become ready in time."""
        if self.child is not None:
            self.child.kill()
        self._schedule(f"{self.spec.name} did not become ready within {timeout_s:g} s", now)

    def is_up(self) -> bool:
        """Whether an instance ought to be running."""
        return self.state in (WorkerState.STARTING, WorkerState.READY)

    def is_late(self, now: float, timeout_s: float) -> bool:
        """Whether its instance should have been ready by now."""
        return self.state is WorkerState.STARTING and now - self._started > timeout_s

    def is_due(self, now: float) -> bool:
        """Whether it is time to start it again."""
        return self.state is WorkerState.WAITING and now >= self._due

    def exit_code(self) -> int | None:
        """The exit code of its last instance."""
        return self.child.exit_code() if self.child is not None else None

    def last_line(self) -> str:
        """What its last instance said last."""
        return (self.child.last_line() if self.child is not None else "") or "it said nothing"

    def log_path(self) -> Path | None:
        """Where its instances write."""
        return self.child.said if self.child is not None else None

    def death(self) -> str:
        """How its last instance ended, in words."""
        return f"worker {self.spec.name} {_ended(self.exit_code())}: {self.last_line()}"

    def epitaph(self) -> str:
        """Why it was given up, and the mend."""
        return (
            f"{self.message}; it is not started again: see {self.log_path()}, then run "
            "`uptier down` and start again"
        )

    def raise_death(self) -> NoReturn:
        """Raise how it ended while it was starting."""
        if self.exit_code() == ConfigurationError.exit_code:
            raise ConfigurationError(self.last_line())
        raise StackError(f"{self.death()}; its log is {self.log_path()}")

    def record(self) -> WorkerRecord:
        """It as other processes may see it."""
        return WorkerRecord(
            name=self.spec.name,
            lane=self.spec.lane,
            state=self.state,
            restarts=self._restarts.count,
            process=self.child.record if self.child is not None else None,
            placement=str(self.spec.placement),
            message=self.message,
        )

    def _schedule(self, message: str, now: float) -> None:
        self.message = message
        delay = self._restarts.delay(now)
        if delay is None:
            self.state = WorkerState.FAILED
            log.error("%s; it is not started again", message)
        else:
            self.state, self._due = WorkerState.WAITING, now + delay
            log.warning("%s; it is started again in %g s", message, delay)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
