"""Runs a stack in the background, and ends it from another process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum

from config.errors import ConfigurationError, StackError
from config.settings import Settings
from workers.children import Child, end_children, leave
from workers.fleet import Check, Progress
from workers.interrupts import Interrupts
from workers.launch import process_environment
from workers.logs import rotate
from workers.stack import enter, running_stack
from workers.stack_leftovers import clean_leftovers
from workers.stack_owner import Hooks
from workers.stack_state import Phase, StackLock, StackState, WorkerState, logs_directory

DOWN_TIMEOUT_S = 15.0
KILL_TIMEOUT_S = 2.0
POLL_S = 0.1
SUPERVISOR_LOG = "supervisor.log"


class Down(StrEnum):
    """What ``uptier down`` found and did."""

    STOPPED = "stopped"
    CLEANED = "cleaned"
    """Only what a crash had left was there."""
    NOTHING = "nothing"


def supervisor_command() -> list[str]:
    """The command line of a stack in the background."""
    return [sys.executable, "-m", "cli.main", "up", "--foreground"]


def start_detached(
    settings: Settings, progress: Progress, command: list[str] | None = None
) -> tuple[StackState, bool]:
    """Start a stack that outlives this process; its state, and whether it ran before.

    Raises:
        ConfigurationError: as :func:`workers.stack.running_stack` does.
        StackError: it died or did not become ready in time; names its last line and its log.
        KeyboardInterrupt: a signal came while waiting; the stack is stopped again.
    """
    with Interrupts() as interrupts:
        found = enter(settings, interrupts.check, progress)
        if isinstance(found, StackState):
            return found, True
        found.stop()  # it was entered only to see that it can be; the supervisor owns its own
        said = logs_directory(settings) / SUPERVISOR_LOG
        rotate(said)
        supervisor = Child.spawn(
            command or supervisor_command(), said=said, env=process_environment(settings)
        )
        try:
            state = _wait_ready(settings, supervisor, interrupts.check, progress)
            leave(supervisor)
            return state, False
        except BaseException:
            end_children([supervisor], DOWN_TIMEOUT_S)
            raise


def stay_up(
    settings: Settings, progress: Progress, ready: Callable[[], None], hooks: Hooks | None = None
) -> bool:
    """Run a stack until a signal ends it; ``ready`` is called once it serves.

    Returns ``False`` at once if another process runs it already.
    """
    with running_stack(settings, progress=progress, hooks=hooks, own_workers=True) as endpoint:
        ready()
        if not endpoint.owned:
            return False
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            progress("stopping")
    return True


def stop_detached(settings: Settings, progress: Progress) -> Down:
    """End the stack that runs on the data directory, whoever started it, and clean up.

    Its owner gets SIGTERM, and SIGKILL if it does not end within 15 s.

    Raises:
        StackError: something still holds the lock after that.
    """
    if not settings.stack_dir.is_dir():
        return Down.NOTHING
    lock = StackLock(settings.stack_dir)
    if lock.acquire():
        return _clean(settings, lock, Down.NOTHING)
    for number, patience in ((signal.SIGTERM, DOWN_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
        state = StackState.read(settings.stack_dir)
        if state is not None and state.owner.alive():
            progress(f"sending {number.name} to process {state.owner.pid}")
            os.kill(state.owner.pid, number)
        if _acquire(lock, patience):
            outcome = _clean(settings, lock, Down.STOPPED)
            _wait_end(state, patience)
            return outcome
    raise StackError(
        f"the process that holds {lock.path} does not end: end it by its id (`lsof {lock.path}` "
        "names it) and run `uptier down` again"
    )


def _wait_ready(
    settings: Settings, supervisor: Child, check: Check, progress: Progress
) -> StackState:
    told = ""
    while True:  # the supervisor itself gives up when its workers take too long
        code = supervisor.exit_code()
        state = StackState.read(settings.stack_dir)
        # The state of a stack that crashed lies there until the supervisor has cleaned up.
        if state is not None and state.phase is Phase.READY and state.owner.alive():
            return state
        if code is not None:
            line = supervisor.last_line() or "it said nothing"
            if code == ConfigurationError.exit_code:
                raise ConfigurationError(line)
            raise StackError(f"the stack ended (exit code {code}): {line}; see {supervisor.said}")
        line = _progress_line(state)
        if line != told:
            progress(line)
        told = line
        check()
        time.sleep(POLL_S)


def _progress_line(state: StackState | None) -> str:
    if state is None or not state.workers:
        return "preparing the broker"
    ready = sum(worker.state is WorkerState.READY for worker in state.workers)
    return f"starting the workers: {ready} of {len(state.workers)} ready"


def _acquire(lock: StackLock, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not lock.acquire():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _wait_end(state: StackState | None, patience_s: float) -> None:
    # It has given everything back; whatever it still does, such as a report, it may finish.
    deadline = time.monotonic() + patience_s
    while state is not None and state.owner.lingers() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _clean(settings: Settings, lock: StackLock, outcome: Down) -> Down:
    try:
        cleaned = clean_leftovers(settings)
    finally:
        lock.release()
    return Down.CLEANED if cleaned is not None and outcome is Down.NOTHING else outcome
