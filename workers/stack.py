"""A stack of this machine, started or attached to by a command that asks decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from config.broker import shown
from config.errors import ConfigurationError, StackError
from config.settings import Settings
from workers.children import ProcessRecord
from workers.fleet import Check, Progress
from workers.interrupts import Interrupts
from workers.stack_owner import Hooks, Stack
from workers.stack_state import (
    Phase,
    StackLock,
    StackState,
    prepare_directories,
    profile_key,
    serves_broker,
)

__all__ = ["Endpoint", "Hooks", "Stack", "enter", "running_stack"]

POLL_S = 0.05


@dataclass(frozen=True)
class Endpoint:
    """Where a command finds its broker, and whether the stack around it still works."""

    broker_url: str
    owned: bool
    """Whether this process started the stack, and stops it."""
    _failure: Callable[[], str | None] = lambda: None

    def failure(self) -> str | None:
        """Why nothing more will be answered, with the mend; ``None`` while all is well."""
        return self._failure()


@contextmanager
def running_stack(
    settings: Settings,
    *,
    progress: Progress | None = None,
    hooks: Hooks | None = None,
    own_workers: bool = False,
) -> Iterator[Endpoint]:
    """A broker with workers behind it, for as long as the ``with`` block lasts.

    The stack of the data directory is attached to if another process runs it, or started, and
    stopped at the end, within 10 s whatever ends the block. With ``broker_url`` set the operator
    runs the broker, and the workers too, here or elsewhere: nothing is started, unless
    ``own_workers`` asks for workers of this machine. Around an own stack SIGTERM and SIGHUP raise
    ``KeyboardInterrupt`` unless the program has handlers of its own.

    Raises:
        ConfigurationError: a setting, a profile or the data directory is wrong, or a stack with
            another profile or broker runs on it.
        BrokerUnavailable: the embedded broker cannot start, or the external one does not answer.
        StackError: a worker died or did not become ready in time.
        KeyboardInterrupt: a signal came while starting; everything is stopped again.
    """
    if settings.broker_url is not None and not own_workers:
        yield _beside(settings, settings.broker_url)
        return
    tell = progress or _quiet
    with Interrupts() as interrupts:
        found = enter(settings, interrupts.check, tell, hooks)
        if isinstance(found, Stack):
            try:
                found.start(interrupts.check, tell)
                interrupts.release()
                yield Endpoint(found.broker_url, owned=True, _failure=found.failure)
            finally:
                interrupts.hold()
                found.stop()
            return
    yield _attached(settings, found)


def enter(
    settings: Settings, check: Check, progress: Progress, hooks: Hooks | None = None
) -> Stack | StackState:
    """A stack to be started, or the state of the one that another process runs, once it serves.

    Raises:
        ConfigurationError: a stack of another profile or broker runs there, or the directory is
            unusable.
        StackError: the stack there has failed, or never becomes ready.
    """
    catalog = settings.catalog  # what is wrong in it is told before anything is touched
    prepare_directories(settings)
    lock = StackLock(settings.stack_dir)
    deadline = time.monotonic() + settings.start_timeout_s
    told = False
    while not lock.acquire():
        state = StackState.read(settings.stack_dir)
        # The state may still be that of an owner that crashed, or of one that is on its way out.
        if state is not None and not _has_ended(state.phase, state.owner):
            _require_same(state, settings)
            if state.phase is Phase.READY:
                return _require_working(state)
        check()
        if time.monotonic() > deadline:
            raise StackError(_stuck(settings, state))
        if not told:
            progress("another process starts or stops the stack here; waiting for it")
            told = True
        time.sleep(POLL_S)
    try:
        return Stack(settings, catalog, lock, hooks or Hooks())
    except BaseException:  # a placement that does not fit
        lock.release()
        raise


def _beside(settings: Settings, broker_url: str) -> Endpoint:
    """The operator's broker, with an eye on the workers that this machine may run for it."""
    state = StackState.read(settings.stack_dir)
    if state is not None and state.phase is Phase.READY and serves_broker(state, settings):
        same = state.profile == profile_key(settings.profile)
        if same and not _has_ended(state.phase, state.owner):
            return _attached(settings, state)
    return Endpoint(broker_url, owned=False)


def _attached(settings: Settings, state: StackState) -> Endpoint:
    def failure() -> str | None:
        now = StackState.read(settings.stack_dir)
        if now is None or now.owner != state.owner or _has_ended(now.phase, now.owner):
            return (
                f"the stack that process {state.owner.pid} ran has ended: run `uptier up`, then "
                "this command again; it goes on where it stopped"
            )
        return now.failure

    return Endpoint(state.broker_url, owned=False, _failure=failure)


def _has_ended(phase: Phase, owner: ProcessRecord) -> bool:
    return phase is Phase.STOPPING or not owner.alive()


def _require_same(state: StackState, settings: Settings) -> None:
    wanted = profile_key(settings.profile)
    mend = "run `uptier down` first, or set UPTIER_DATA_DIR to another directory"
    if state.profile != wanted:
        raise ConfigurationError(
            f"a stack with profile {state.profile!r} runs on {settings.data_dir}, but profile "
            f"{wanted!r} is asked for: {mend}"
        )
    if not serves_broker(state, settings):
        raise ConfigurationError(
            f"a stack on broker {shown(state.broker_url)} runs on {settings.data_dir}, but "
            f"UPTIER_BROKER_URL is {shown(settings.broker_url or '')}: {mend}"
        )


def _require_working(state: StackState) -> StackState:
    if state.failure is not None:
        raise StackError(state.failure)
    return state


def _stuck(settings: Settings, state: StackState | None) -> str:
    who = f"process {state.owner.pid}" if state is not None else "another process"
    return (
        f"{who} holds {settings.stack_dir / 'lock'} but its stack did not become ready within "
        f"{settings.start_timeout_s:g} s: run `uptier down`, or see the logs beside it"
    )


def _quiet(line: str) -> None:
    pass
