"""The process that owns a stack: starts its parts, watches them, ends them."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from config.catalog import Catalog
from config.errors import StackError
from config.settings import Settings
from ledger.database import migrate
from ledger.workers import ready_workers
from workers.children import Child, ProcessRecord, rotate
from workers.fleet import Check, Fleet, Progress
from workers.gpus import detect_gpus, physical_cores, place
from workers.launch import WorkerSpec, worker_command, worker_environment, worker_specs
from workers.stack_broker import stack_broker
from workers.stack_leftovers import clean_leftovers
from workers.stack_state import (
    Phase,
    StackLock,
    StackState,
    logs_directory,
    profile_key,
    remove_state,
)

log = logging.getLogger(__name__)

WATCH_S = 0.5
JOIN_S = 1.5


@dataclass(frozen=True)
class Hooks:
    """What a stack is made of beside the broker; tests put stand-ins here."""

    migrate: Callable[[Settings], None] = migrate
    ready: Callable[[Settings], set[str]] = ready_workers
    command: Callable[[WorkerSpec], list[str]] = worker_command


class Stack:
    """The stack of a data directory whose lock this process holds; start it once, stop it."""

    def __init__(self, settings: Settings, catalog: Catalog, lock: StackLock, hooks: Hooks) -> None:
        self._settings = settings
        self._hooks = hooks
        self._logs = logs_directory(settings)
        self._owner = ProcessRecord.of(os.getpid())
        self._undo = ExitStack()
        self._undo.callback(lock.release)
        self._broker = stack_broker(settings)
        self._fleet = Fleet(
            self._specs(catalog),
            self._spawn,
            lambda: hooks.ready(settings),
            start_timeout_s=settings.start_timeout_s,
        )
        self._phase = Phase.STARTING
        self._pen = threading.Lock()
        self._closed = True
        self._stopping = threading.Event()

    @property
    def broker_url(self) -> str:
        """The broker's URL, with its password."""
        return self._broker.url

    def failure(self) -> str | None:
        """Which part was given up, and why; ``None`` while all is well."""
        return self._broker.failure or self._fleet.failure()

    def start(self, check: Check, progress: Progress) -> None:
        """Start everything and wait until every worker serves.

        ``check`` is called while waiting; whatever it raises ends the start. Call :meth:`stop`
        after a start that failed, too.
        """
        atexit.register(self.stop)  # for an interrupt between two statements of the caller
        ended = clean_leftovers(self._settings)
        if ended is not None:
            progress(f"cleaned up after a stack that crashed; {ended} processes ended")
        for worker in self._fleet.records():
            rotate(self._log(worker.name))
        self._undo.callback(self._close_state)
        self._closed = False
        self._write()
        self._hooks.migrate(self._settings)
        check()
        progress("preparing the broker")
        self._undo.callback(self._broker.stop)
        self._broker.start(check, self._write)
        self._undo.callback(self._fleet.stop)
        progress("starting the workers")
        self._fleet.start()
        self._write()
        self._fleet.wait_ready(lambda: self._check_start(check), progress)
        self._phase = Phase.READY
        self._write()
        self._start_watch()

    def stop(self) -> None:
        """End everything this stack started and remove its state; safe to call again."""
        if os.getpid() != self._owner.pid:  # a fork of the owner owns nothing
            return
        atexit.unregister(self.stop)
        self._phase = Phase.STOPPING
        self._stopping.set()
        self._write_stopping()
        self._undo.close()

    def _specs(self, catalog: Catalog) -> list[WorkerSpec]:
        return worker_specs(catalog, place(catalog, detect_gpus(), physical_cores()))

    def _spawn(self, spec: WorkerSpec, token: str) -> Child:
        return Child.spawn(
            self._hooks.command(spec),
            said=self._log(spec.name),
            env=worker_environment(spec, token, self._settings, self.broker_url),
            pipe=True,
        )

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _check_start(self, check: Check) -> None:
        check()
        if not self._broker.is_up():
            raise StackError(self._broker.death())

    def _start_watch(self) -> None:
        watch = threading.Thread(target=self._watch, name="stack-watch", daemon=True)
        self._undo.callback(watch.join, JOIN_S)
        watch.start()

    def _watch(self) -> None:
        changed, told = False, ""
        while not self._stopping.wait(WATCH_S):
            try:
                changed |= self._broker.watch(time.monotonic(), self._check_stopping)
                changed |= self._fleet.watch()
                if changed:
                    self._write()
                changed, told = False, ""
            except _Stopping:
                return
            except (OSError, DBAPIError) as error:  # a full disk, a ledger that is away
                if str(error) != told:
                    log.warning("a look at the stack's processes failed: %s", error)
                changed, told = True, str(error)
            except Exception:
                log.exception("one look at the stack's processes failed")

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise _Stopping

    def _write(self) -> None:
        state = StackState(
            phase=self._phase,
            profile=profile_key(self._settings.profile),
            broker_url=self.broker_url,
            owner=self._owner,
            broker=self._broker.process,
            workers=self._fleet.records(),
            failure=self.failure(),
        )
        with self._pen:
            if not self._closed:
                state.write(self._settings.stack_dir)

    def _write_stopping(self) -> None:
        try:
            self._write()
        except OSError as error:  # a full disk must not keep the processes alive
            log.warning("the stack's state cannot be written: %s", error)

    def _close_state(self) -> None:
        with self._pen:
            self._closed = True
            remove_state(self._settings.stack_dir)


class _Stopping(Exception):
    """The stack is being stopped."""
