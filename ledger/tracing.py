"""Traces: one for each decision, over all processes that it passes.

The trace's id is the decision's own, and the id of its root span follows from it, so that every
process knows both without being told: nothing travels in messages, nothing is kept in the ledger.
The root is told by whoever settled the decision. Spans have ids, names of lanes and kinds, counts
and money; prompts and answers never.

Needs the extra ``tracing``; without ``traces_url`` nothing of it is imported.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from config.errors import ConfigurationError
from config.settings import Settings
from ledger.outbox import Message
from ledger.records import Ended

if TYPE_CHECKING:
    from ledger.spans import Spans

_settings: Settings | None = None
_spans: tuple[int, Spans] | None = None
_lock = threading.Lock()


def use(settings: Settings) -> None:
    """Trace by these settings from now on, in this process and its forks.

    Raises:
        ConfigurationError: traces are wanted, and the extra ``tracing`` is not installed.
    """
    global _settings
    if settings.traces_url is not None:
        try:
            import ledger.spans  # noqa: F401
        except ImportError:
            raise ConfigurationError(
                "UPTIER_TRACES_URL is set, but OpenTelemetry is not installed: "
                "pip install 'uptier[tracing]'"
            ) from None
    if _settings is not None and _settings.traces_url != settings.traces_url:
        end()
    _settings = settings


def spans() -> Spans | None:
    """Where this process tells spans; ``None`` while nothing is traced."""
    global _spans
    settings = _settings
    if settings is None or settings.traces_url is None:
        return None
    with _lock:
        if _spans is None or _spans[0] != os.getpid():  # a fork has no thread that would send them
            from ledger.spans import Spans

            _spans = os.getpid(), Spans(settings.traces_url, settings.traces_share)
        return _spans[1]


def submitted(messages: Iterable[Message], began: int, ended: int) -> None:
    """Decisions that were written and announced; times in microseconds since 1970."""
    found = spans()
    if found is not None:
        for message in messages:
            for one in message.ids:
                found.hop("submit", one, began, ended, {"lane": message.queue})


def settled(ended: Sequence[Ended]) -> None:
    """Decisions that settled."""
    found = spans()
    if found is not None and ended:
        found.settled(ended)


def flush() -> None:
    """Send what this process has told so far."""
    if _spans is not None and _spans[0] == os.getpid():
        _spans[1].flush()


def end() -> None:
    """Send what this process has not sent yet, and tell no more until ``use`` is called again."""
    global _settings, _spans
    _settings = None
    if _spans is not None and _spans[0] == os.getpid():
        _spans[1].close()
        _spans = None
