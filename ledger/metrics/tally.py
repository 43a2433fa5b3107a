"""Counts what a transaction does, in that transaction: one row beside the changes themselves.

So a count can neither be lost with a worker nor be made twice, and no two transactions wait for
one another as they would over a row of totals. The steward folds these rows into the totals
(totals.py).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict

from sqlalchemy import Connection, insert

from ledger.metrics.catalog import BUCKETS_S, Metric
from ledger.tables import TABLES

TALLIES = TABLES.tables["tally"]
SEPARATOR = "|"
SUM = "sum"
PLACE = "uptier_tally"
"""Where a connection keeps what its transaction has counted."""
COUNTS = "uptier_counts"
"""The engine's option that says whether anything is counted."""

_INSERT = insert(TALLIES).inline()
_BOUNDS_US = tuple(int(bound * 1_000_000) for bound in BUCKETS_S)
_BOUNDS = (*(f"{bound:g}" for bound in BUCKETS_S), "inf")


def begin(connection: Connection) -> None:
    """Count from here on; what an earlier transaction left undone is forgotten."""
    on = connection.get_execution_options().get(COUNTS, True)
    connection.info[PLACE] = defaultdict(int) if on else None


def counts_of(connection: Connection) -> dict[tuple[str, ...], int] | None:
    """What the open transaction has counted: a metric's name and the values of its labels (of a
    histogram, a bound or ``sum`` besides), in the ledger's units. ``None``: nothing is counted."""
    found: dict[tuple[str, ...], int] | None = connection.info.get(PLACE)
    return found


def count(connection: Connection, metric: Metric, *labels: str, amount: int = 1) -> None:
    """Add to a metric in the open transaction; ``amount`` in the ledger's units."""
    counts = counts_of(connection)
    if counts is not None:
        counts[(metric.name, *labels)] += amount


def bound_of(micros: int) -> str:
    """The upper bound, in seconds, of the bucket of a histogram that a time falls into."""
    return _BOUNDS[bisect_left(_BOUNDS_US, micros)]


def write(connection: Connection) -> None:
    """Put what was counted beside the changes; nothing if nothing was."""
    counts = connection.info.pop(PLACE, None)
    if counts:
        told = {_key(series): amount for series, amount in counts.items()}
        connection.execute(_INSERT, {"counts": json.dumps(told)})


def _key(series: tuple[str, ...]) -> str:
    """What a series is called in the ledger."""
    return SEPARATOR.join(part.replace(SEPARATOR, "_") for part in series)
