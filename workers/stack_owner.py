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
from workers.children import Child, ProcessRecord
from workers.fleet import Check, Fleet, Progress
from workers.fleet_ledger import FleetLedger, OpenFleetLedger
from workers.fleet_orders import Orders, Stay
from workers.keeper import Keeper
from workers.launch import WorkerSpec, worker_command, worker_environment, worker_specs
from workers.logs import rotate
from workers.needs import lane_needs
from workers.orders import forget_orders
from workers.placement import place
from workers.plan_view import hardware_here
from workers.stack_broker import stack_broker
from workers.stack_flower import StackFlower
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
"""How long the end waits for a thread that may be held up by a ledger that is away."""


@dataclass(frozen=True)
class Hooks:
    """What a stack is made of beside the broker; tests put stand-ins here."""

    ledger: OpenFleetLedger = FleetLedger
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
        self._catalog = catalog
        self._needs = lane_needs(settings)
        self._stay = Stay(place(catalog, hardware_here(settings), self._needs))
        self._fleet = Fleet(
            worker_specs(self._stay.plan),
            self._spawn,
            lambda: hooks.ready(settings),
            start_timeout_s=settings.start_timeout_s,
            cut_off=self._is_cut_off,
        )
        self._flower = StackFlower(settings)
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
        self._serve_metrics(progress)
        ledger = self._hooks.ledger(self._settings)
        self._undo.callback(_end_ledger, ledger)
        ledger.begin()
        check()
        progress("preparing the broker")
        self._undo.callback(self._broker.stop)
        self._broker.start(check, self._write)
        self._undo.callback(self._fleet.stop)
        progress("starting the workers")
        self._fleet.start()
        self._write()
        self._fleet.wait_ready(lambda: self._check_start(check), progress)
        self._undo.callback(self._flower.stop)
        self._flower.start(lambda: self._check_start(check))
        self._phase = Phase.READY
        self._write()
        self._start_watch(ledger)

    def stop(self) -> None:
        """End everything this stack started and remove its state; safe to call again."""
        if os.getpid() != self._owner.pid:  # a fork of the owner owns nothing
            return
        atexit.unregister(self.stop)
        self._phase = Phase.STOPPING
        self._stopping.set()
        self._write_stopping()
        self._undo.close()

    def _serve_metrics(self, progress: Progress) -> None:
        """Tell Prometheus from here, if a port is set: before anything slow starts."""
        port, host = self._settings.metrics_port, self._settings.metrics_host
        if port is not None:
            # Imported here: Prometheus's client is not needed by any other stack.
            from ledger.metrics.server import served

            names = "UPTIER_METRICS_HOST and UPTIER_METRICS_PORT"
            address = self._undo.enter_context(served(self._settings, host, port, names=names))
            progress(f"metrics on {address}")

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

    def _start_watch(self, ledger: FleetLedger) -> None:
        orders = Orders(self._catalog, self._needs, self._stay, self._fleet, ledger)
        keeper = Keeper(self._settings, self._fleet, self._broker, ledger, orders, self._write)
        for name, target, arguments in (
            ("stack-watch", self._watch, ()), ("stack-keeper", keeper.run, (self._stopping,)),
        ):  # fmt: skip
            thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
            self._undo.callback(thread.join, JOIN_S)
            thread.start()

    def _is_cut_off(self) -> bool:
        """Whether a worker that starts has to wait for the broker or the ledger."""
        if not self._broker.answers():
            return True
        try:
            self._hooks.ready(self._settings)
        except DBAPIError:
            return True
        return False

    def _watch(self) -> None:
        changed, told, lent = False, "", self._stay.plan.lent
        while not self._stopping.wait(WATCH_S):
            try:
                changed |= self._broker.watch(time.monotonic(), self._check_stopping)
                changed |= self._fleet.watch()
                self._flower.watch(time.monotonic())
                lent, before = self._stay.plan.lent, lent
                if changed or lent != before:
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
            broker_restarts=self._broker.restarts,
            broker_message=self._broker.message,
            workers=self._fleet.records(),
            lent=tuple(sorted(self._stay.plan.lent)),
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
            forget_orders(self._settings.stack_dir)


def _end_ledger(ledger: FleetLedger) -> None:
    """Tell the ledger that the workers ended, if it listens: a link that is cut takes longer to
    notice than a stack may take to end."""
    thread = threading.Thread(target=_tell_end, args=(ledger,), name="stack-end", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending, and Python 3.12 starts none any more
        _tell_end(ledger)
        return
    thread.join(JOIN_S)
    if thread.is_alive():
        log.warning("the ledger is not told that the workers ended: it does not answer")


def _tell_end(ledger: FleetLedger) -> None:
    try:
        ledger.end()
    except DBAPIError as error:
        log.warning("the ledger is not told that the workers ended: %s", error.orig)


class _Stopping(Exception):
    """The stack is being stopped."""
