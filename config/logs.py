"""How this process logs: lines for people, or a JSON object a line for programs.

Fields that lines may have beside their text are a closed list. So whatever a library hands to its
logger, no prompt, answer or key gets out as a field; texts are cleaned of keys as they are made
(config/secrets.py).
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from config.settings import Settings
from config.visible import visible

FIELDS = ("run", "decision", "kind", "lane", "attempt", "status", "outcome")
"""What a line may tell beside its text, given as ``extra``; run and decision are ids."""
WORKER = "UPTIER_WORKER_NAME"


def set_up(settings: Settings) -> None:
    """Log to standard error by these settings, unless the program does so by its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if settings.log_format == "json" else Console())
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    logging.captureWarnings(True)


class Console(logging.Formatter):
    """Time, level and text, then the fields as ``name=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        told = "".join(f" {name}={visible(str(value))}" for name, value in fields(record).items())
        return super().formatMessage(record) + told


class Json(logging.Formatter):
    """One object a line: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, the fields,
    the worker's name, and ``exception`` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        told: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if worker := os.environ.get(WORKER):
            told["worker"] = worker
        told |= fields(record)
        if record.exc_info and record.exc_info[0] is not None:
            told["exception"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that a line has."""
    return {name: record.__dict__[name] for name in FIELDS if record.__dict__.get(name) is not None}
