"""The broker of a stack: the embedded server, started and watched, or one that others run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from config.broker import check_broker
from config.errors import BrokerUnavailable
from config.queues import make_app
from config.settings import Settings
from workers.children import ProcessRecord
from workers.logs import rotate
from workers.restarts import Restarts
from workers.stack_state import logs_directory
from workers.valkey import Valkey, answers

log = logging.getLogger(__name__)


class StackBroker(Protocol):
    """What a stack needs of its broker."""

    failure: str | None
    """Why it was given up; ``None`` while all is well."""
    message: str | None
    """Why it was started again last."""

    @property
    def restarts(self) -> int:
        """How often it was started again since the stack started."""
        ...

    @property
    def url(self) -> str:
        """Where it is, with its password."""
        ...

    @property
    def process(self) -> ProcessRecord | None:
        """Its process, if that is the stack's to end."""
        ...

    def start(self, check: Callable[[], None], launched: Callable[[], None]) -> None:
        """Make sure that it answers; ``check`` is called while waiting and may raise.

        Raises:
            BrokerUnavailable: it does not answer, or cannot start.
        """
        ...

    def stop(self) -> None:
        """End it, if it is the stack's to end."""
        ...

    def is_up(self) -> bool:
        """Whether workers may expect it to answer."""
        ...

    def answers(self) -> bool:
        """Whether it answers now; asks it."""
        ...

    def death(self) -> str:
        """How its process ended, in words."""
        ...

    def watch(self, now: float, check: Callable[[], None]) -> bool:
        """One look, which mends what it can; true on a change."""
        ...


def stack_broker(settings: Settings) -> StackBroker:
    """The broker that the settings name, or else an embedded one."""
    if settings.broker_url is not None:
        return ExternalBroker(settings, settings.broker_url)
    return EmbeddedBroker(settings)


class ExternalBroker:
    """A broker that the operator runs: looked at when the stack starts, and then left alone.

    Workers wait for it by themselves when it is away, so the stack does not watch it.
    """

    process: ProcessRecord | None = None
    failure: str | None = None
    message: str | None = None
    restarts = 0

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self.url = url

    def start(self, check: Callable[[], None], launched: Callable[[], None]) -> None:
        """See that it answers."""
        check()
        check_broker(make_app(self._settings, self.url))

    def stop(self) -> None:
        """Nothing: it goes on."""

    def is_up(self) -> bool:
        """Always, as far as the stack is concerned."""
        return True

    def answers(self) -> bool:
        """Whether it answers now."""
        try:
            check_broker(make_app(self._settings, self.url))
        except BrokerUnavailable:
            return False
        return True

    def death(self) -> str:
        """It has no process here that could end."""
        return "the broker is away"

    def watch(self, now: float, check: Callable[[], None]) -> bool:
        """Nothing changes here."""
        return False


class EmbeddedBroker:
    """The embedded server over all its processes."""

    def __init__(self, settings: Settings) -> None:
        said = logs_directory(settings) / "valkey.log"
        self.valkey = Valkey(settings.stack_dir / "valkey", said, settings.broker_port)
        self.failure: str | None = None
        self.message: str | None = None
        self._restarts = Restarts()
        self._due: float | None = None

    @property
    def url(self) -> str:
        """Where it listens, with its password."""
        return self.valkey.url

    @property
    def process(self) -> ProcessRecord | None:
        """The server's process."""
        return self.valkey.child.record if self.valkey.child is not None else None

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._restarts.count

    def start(self, check: Callable[[], None], launched: Callable[[], None]) -> None:
        """Start the server and wait until it answers; ``launched`` is called once it has an id."""
        rotate(self.valkey.said)
        self.valkey.start(check, launched)

    def stop(self) -> None:
        """Let the server write its log to disk and end it."""
        self.valkey.stop()

    def is_up(self) -> bool:
        """Whether its process runs."""
        return self.valkey.child is not None and self.valkey.child.exit_code() is None

    def answers(self) -> bool:
        """Whether it answers now."""
        return answers(self.valkey.url)

    def death(self) -> str:
        """How its process ended, in words."""
        line = self.valkey.child.last_line() if self.valkey.child is not None else ""
        return f"the embedded broker died: {line or 'it said nothing'}; see {self.valkey.said}"

    def watch(self, now: float, check: Callable[[], None]) -> bool:
        """One look: a dead server is started again on its port, with its data. True on a change."""
        if self.failure is not None or self.is_up():
            return False
        if self._due is None:
            self._schedule(self.death(), now)
            return True
        if now < self._due:
            return False
        self._restarts.restarted()
        try:
            self.valkey.start(check)
        except BrokerUnavailable as error:
            self._schedule(str(error), now)
        else:
            self._due = None
            self._restarts.proven()
        return True

    def _schedule(self, message: str, now: float) -> None:
        self.message = message
        delay = self._restarts.delay()
        if delay is None:
            self.failure = f"{message}; run `uptier down` and start again"
            log.error("%s", self.failure)
        else:
            self._due = now + delay
            log.warning("%s; it is started again in %g s", message, delay)
