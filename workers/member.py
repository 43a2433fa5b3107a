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
from workers.restarts import PROVEN_S, Restarts
from workers.stack_state import WorkerRecord, WorkerState

log = logging.getLogger(__name__)

RETIRE_GRACE_S = 60.0
"""How long a worker that is to go may finish its running messages; what is left is leased to it,
and goes to others when the lease ends."""

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
        self._since = 0.0
        """When it was started, or became ready, or was told to go."""
        self._due = 0.0
        self._condemned: str | None = None
        self._comes_back = False

    def start(self, now: float) -> None:
        """Start a new instance."""
        if self.child is not None:
            self.child.kill()  # it has ended; this closes its pipe
        self.token, self._condemned, self._comes_back = uuid.uuid4().hex, None, False
        self.child = self._spawn(self.spec, self.token)
        self.state = WorkerState.STARTING
        self._since = now

    def restart(self, now: float) -> None:
        """Start it again after a death."""
        self._restarts.restarted()
        self._try(now)

    def revive(self, now: float) -> None:
        """Start it by an operator's word, whatever became of it."""
        self._restarts.proven()
        self._try(now)

    def served(self, now: float) -> None:
        """It became ready."""
        self.state, self._since = WorkerState.READY, now

    def proven(self) -> None:
        """It has done work since it became ready."""
        self._restarts.proven()

    def look(self, now: float) -> None:
        """Note that it has served for long."""
        if self.state is WorkerState.READY and now - self._since >= PROVEN_S:
            self._restarts.proven()

    def died(self, now: float) -> None:
        """Note a death; a wrong setting does not mend itself, anything else is tried again."""
        code, message = self.exit_code(), self.death()
        if code == ConfigurationError.exit_code and self._condemned is None:
            self.state, self.message = WorkerState.FAILED, message
            log.error("%s; it is not started again", message)
        else:
            self._schedule(message, now)

    def give_up_waiting(self, now: float, timeout_s: float) -> None:
        """End an instance that did not become ready in time."""
        if self.child is not None:
            self.child.kill()
        self._schedule(f"{self.spec.name} did not become ready within {timeout_s:g} s", now)

    def condemn(self, reason: str) -> None:
        """End an instance that is ill: at once, since one that hangs does not listen."""
        self._condemned = reason
        log.warning("worker %s %s; it is ended", self.spec.name, reason)
        if self.child is not None:
            self.child.kill()

    def retire(self, now: float, *, comes_back: bool = False) -> None:
        """Tell it to finish its running messages and go; with ``comes_back`` it is then started
        again."""
        self._comes_back = comes_back
        if not self.is_up() or self.child is None:
            self.state = WorkerState.STOPPING  # nothing runs that could finish anything
            return
        self.state, self._since = WorkerState.STOPPING, now
        self.child.terminate()

    def leave(self, now: float) -> bool:
        """Of one that was told to go: whether it has gone. One past its grace is killed."""
        if self.child is None:
            return True
        if self.exit_code() is None and now - self._since > RETIRE_GRACE_S:
            log.warning("worker %s does not finish; it is ended", self.spec.name)
            self.child.kill()
        if self.exit_code() is None:
            return False
        self.child.kill()  # it has ended; this closes its pipe
        if self._comes_back:
            self.revive(now)
            return False
        return True

    def goes(self) -> bool:
        """Whether it was told to go, and not to come back."""
        return self.state is WorkerState.STOPPING and not self._comes_back

    def is_up(self) -> bool:
        """Whether an instance ought to be running."""
        return self.state in (WorkerState.STARTING, WorkerState.READY)

    def is_late(self, now: float, timeout_s: float) -> bool:
        """Whether its instance should have been ready by now."""
        return self.state is WorkerState.STARTING and now - self._since > timeout_s

    def wait_on(self, now: float) -> None:
        """Give its instance, which is late through no fault of its own, its whole time again."""
        self._since = now

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
        if self._condemned is not None:
            return f"worker {self.spec.name} {self._condemned}"
        return f"worker {self.spec.name} {_ended(self.exit_code())}: {self.last_line()}"

    def epitaph(self) -> str:
        """Why it was given up, and the mend."""
        return (
            f"{self.message}; it is not started again: see {self.log_path()}, then run "
            f"`uptier fleet restart {self.spec.lane}`"
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

    def _try(self, now: float) -> None:
        try:
            self.start(now)
        except OSError as error:  # no memory or no process id left: that may pass
            self._schedule(f"{self.spec.name} could not be started: {error.strerror}", now)

    def _schedule(self, message: str, now: float) -> None:
        self.message = message
        delay = self._restarts.delay()
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
