"""One value of one series, in the units that Prometheus is told."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.metrics.catalog import Metric


@dataclass(frozen=True)
class Sample:
    """A value of a counter or gauge; ``labels`` in the order in which the metric names them."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


def sample(metric: Metric, *labels: str, value: float) -> Sample:
    """A sample of a value in the ledger's units."""
    return Sample(metric, labels, value / metric.scale)
