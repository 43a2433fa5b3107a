"""The time of day as the ledger keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Gives microseconds since 1970 (UTC)."""

SECOND = 1_000_000


def now() -> int:
    """Microseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000
