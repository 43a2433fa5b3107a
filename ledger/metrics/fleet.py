"""What workers tell of themselves with their sign of life: whether they serve, and their engines.

Workers of every machine reach the page through their rows in the ledger, so none needs a port.
A worker counts from its start; Prometheus sees the restart as a counter that begins anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, select

from config.catalog import Catalog
from config.queues import QUALITY
from ledger.metrics import catalog as metrics
from ledger.metrics.sample import Sample, sample
from ledger.workers import ALIVE_US, WORKERS

VRAM = {"vram_used_bytes": metrics.VRAM_USED, "vram_total_bytes": metrics.VRAM_TOTAL}
GPU = "gpu"
"""In a worker's figures: the card that it is pinned to, as CUDA_VISIBLE_DEVICES has it."""


def fleet(connection: Connection, catalog: Catalog, now: int) -> Iterator[Sample]:
    """Every worker that has been heard of in the last minutes, by its name and machine."""
    columns = WORKERS.c
    query = select(
        columns.name, columns.lane, columns.host, columns.state, columns.heartbeat_at, columns.stats
    ).order_by(columns.started_at)
    # Of several instances of one worker the last counts.
    latest = {(row.name, row.host): row for row in connection.execute(query)}
    ready: Counter[str] = Counter(dict.fromkeys((*catalog.lanes, QUALITY), 0))
    for row in latest.values():
        serves = row.state == "ready" and row.heartbeat_at > now - ALIVE_US
        stopped = row.state != "ready"
        if stopped:
            continue  # it said goodbye
        labels = (row.name, row.lane, row.host)
        yield sample(metrics.WORKER_UP, *labels, value=float(serves))
        if serves:
            ready[row.lane] += 1
            yield from _told(labels, json.loads(row.stats))
    for lane, count in ready.items():
        yield sample(metrics.WORKERS_READY, lane, value=count)


def _told(labels: tuple[str, ...], figures: Mapping[str, Any]) -> Iterator[Sample]:
    for name, metric in metrics.FIGURES.items():
        if name in figures:
            yield sample(metric, *labels, value=figures[name])
    for name, metric in VRAM.items():
        if name in figures:
            yield sample(metric, *labels, f"{figures.get(GPU, 0):g}", value=figures[name])
