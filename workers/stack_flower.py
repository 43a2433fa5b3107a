"""The Flower of a stack: started after the workers, watched, started again, ended before them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from config.errors import ConfigurationError, StackError
from config.settings import Settings
from workers.children import PARENT_PIPE, Child, end_children
from workers.flower_place import FlowerRecord
from workers.launch import process_environment
from workers.logs import rotate
from workers.restarts import PROVEN_S, Restarts
from workers.stack_state import logs_directory

log = logging.getLogger(__name__)

NAME = "flower"
START_TIMEOUT_S = 30.0
GRACE_S = 2.0
POLL_S = 0.05


class StackFlower:
    """Flower as a part of a stack, or nothing where the settings do not ask for it.

    It only watches, so the stack goes on when it is given up.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._said = logs_directory(settings) / f"{NAME}.log"
        self._child: Child | None = None
        self._restarts = Restarts()
        self._due: float | None = None
        self._since: float | None = None
        """When it was last started again."""

    def start(self, check: Callable[[], None]) -> None:
        """Start it and wait until it serves; ``check`` is called while waiting and may raise.

        Raises:
            ConfigurationError: its port is taken, or another setting is wrong; its own words.
            StackError: it ended or did not serve in time.
        """
        if not self._settings.flower:
            return
        rotate(self._said)
        child = self._spawn()
        deadline = time.monotonic() + START_TIMEOUT_S
        while (
            found := FlowerRecord.read(self._settings)
        ) is None or found.process.pid != child.pid:
            check()
            code = child.exit_code()
            if code == ConfigurationError.exit_code:
                raise ConfigurationError(child.last_line())
            if code is not None or time.monotonic() > deadline:
                raise StackError(f"Flower does not serve: {child.last_line()}; see {self._said}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Let it write down what it saw, and end it."""
        if self._child is not None:
            end_children([self._child], GRACE_S)

    def watch(self, now: float) -> None:
        """One look: if it died it is started again, and after some deaths in a row left alone."""
        if self._child is None:
            return
        if self._child.exit_code() is None:
            if self._since is not None and now - self._since >= PROVEN_S:
                self._restarts.proven()
            return
        if self._due is None:
            self._schedule(self._child, now)
        elif now >= self._due:
            self._restarts.restarted()
            self._due, self._since = None, now
            self._spawn()

    def _schedule(self, child: Child, now: float) -> None:
        delay = self._restarts.delay()
        if delay is None:
            log.error("Flower ended (%s) and is not started again", child.last_line())
            self._child = None
        else:
            log.warning("Flower ended (%s); it is started again in %g s", child.last_line(), delay)
            self._due = now + delay

    def _spawn(self) -> Child:
        if self._child is not None:
            self._child.kill()  # it has ended; this closes its pipe
        self._child = Child.spawn(
            [sys.executable, "-m", "cli.main", NAME],
            said=self._said,
            # It finds the broker as any command of this data directory does.
            env={**process_environment(self._settings), PARENT_PIPE: "1"},
            pipe=True,
        )
        return self._child
