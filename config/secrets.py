"""Keeps keys and passwords out of what is written: logs, the ledger, reports, lines of error."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

HIDDEN = "***"
LEAST_CHARS = 6
"""Shorter secrets are not looked for: they would be found within ordinary words."""
OTHERS = ("HF_TOKEN", "PGPASSWORD", "ANTHROPIC_AUTH_TOKEN")
"""Variables that the libraries beneath read for themselves."""
IN_URL = re.compile(r"(\w[\w+.-]*://[^\s/?#:@]*:)[^\s'\"<>]+@")
IN_QUERY = re.compile(r"([?&](?:password|token|secret|api_?key)=)[^\s&'\"]+", re.IGNORECASE)
KEYS = re.compile(
    r"\bsk-ant-[\w-]+|\bsk-[\w-]{16,}|\bhf_\w{16,}|\bAIza[\w-]{30,}|(?<=Bearer )[\w.~+/=-]{16,}"
)

_known: frozenset[str] = frozenset()
_lock = threading.Lock()


def remember(value: str | None) -> None:
    """Hide this value from now on, wherever this process writes it."""
    global _known
    if value and len(value) >= LEAST_CHARS and value not in _known:
        with _lock:
            _known |= {value}


def redact(text: str) -> str:
    """The text without passwords in URLs, keys of known make, and values that were remembered."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = IN_URL.sub(rf"\1{HIDDEN}@", text)
    text = IN_QUERY.sub(rf"\1{HIDDEN}", text)
    return KEYS.sub(HIDDEN, text)


def install() -> None:
    """Redact every log record of this process and its forks, and the traceback it dies of.

    Records are cleaned as they are made, for a filter belongs to a handler, and Celery puts its
    own handlers in the place of those that it finds.
    """
    for name in OTHERS:
        remember(os.environ.get(name))
    make = logging.getLogRecordFactory()
    if make is not _record:
        _Made.by = make
        logging.setLogRecordFactory(_record)
    sys.excepthook = _say
    threading.excepthook = lambda args: _say(args.exc_type, args.exc_value, args.exc_traceback)


class _Made:
    """What made log records before."""

    by: Any = logging.LogRecord


def _record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record: logging.LogRecord = _Made.by(*args, **kwargs)
    try:
        said = record.getMessage()
    except Exception:  # arguments that do not fit: logging would print them as they are
        said = f"{record.msg} {record.args}"
        record.msg, record.args = redact(said), None
    clean = redact(said)
    if clean != said:
        record.msg, record.args = clean, None
    if record.exc_info and record.exc_info[0] is not None:
        trace = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if redact(trace) != trace:
            record.exc_text = redact(trace)
    return record


def _say(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    lines = "".join(traceback.format_exception(kind, error, trace))
    print(redact(lines), end="", file=sys.stderr)
