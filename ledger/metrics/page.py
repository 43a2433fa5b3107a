"""The page that Prometheus reads: one consistent look at the ledger for each scrape.

Nothing is kept between scrapes: any number of exporters of one ledger say the same, and one that
is started again goes on where the last one was.
"""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from config.catalog import Catalog
from config.errors import UptierError
from config.queues import QUALITY
from config.settings import Settings
from ledger.clock import now
from ledger.database import ledger_place, open_ledger, reading
from ledger.metrics import catalog as metrics
from ledger.metrics.catalog import BUCKETS_S, NO_LANE, OTHER_KIND, Metric, MetricKind
from ledger.metrics.fleet import fleet
from ledger.metrics.sample import Sample, sample
from ledger.metrics.standing import standing
from ledger.metrics.tally import SUM
from ledger.metrics.totals import Series, known_kinds, totals

log = logging.getLogger(__name__)

FRESH_S = 1.0
"""A page is read again no sooner: however many ask, the ledger is asked once a second."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Page(Collector):
    """The page of one ledger; any thread may ask for it."""

    def __init__(self, settings: Settings, clock: Callable[[], int] = now) -> None:
        self._settings = settings
        self._clock = clock
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._told = ""
        self._version = importlib.metadata.version("uptier")
        self._page, self._made = b"", float("-inf")
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self, *, fresh: bool = False) -> bytes:
        """The page in Prometheus's text format, at most a second old, or of this moment."""
        with self._lock:
            if fresh or time.monotonic() - self._made >= FRESH_S:
                self._page, self._made = generate_latest(self._registry), time.monotonic()
            return self._page

    def close(self) -> None:
        """Give back the connections."""
        if self._engine is not None:
            self._engine.dispose()

    def collect(self) -> Iterator[Family]:
        """Every family, in the order of the catalog; those of Uptier itself alone while the
        ledger is away."""
        began = time.perf_counter()
        try:
            sums, samples = self._read()
        except (SQLAlchemyError, UptierError) as error:
            self._tell(str(error).splitlines()[0])
            sums, samples = None, []
        samples = [
            *samples,
            sample(metrics.LEDGER_UP, value=float(sums is not None)),
            sample(metrics.COLLECT_SECONDS, value=time.perf_counter() - began),
            sample(metrics.BUILD, self._version, Path(self._settings.profile).stem, value=1),
        ]
        counted = {} if sums is None else _by_metric(sums, self._settings.catalog)
        yield from families(counted, samples)

    def _read(self) -> tuple[Mapping[Series, int] | None, list[Sample]]:
        if not self._exists():
            return None, []
        if self._engine is None:
            self._engine = open_ledger(self._settings)
        catalog, moment = self._settings.catalog, self._clock()
        with reading(self._engine) as connection:
            sums = totals(connection, known_kinds(catalog))
            found = [*standing(connection, catalog, moment), *fleet(connection, catalog, moment)]
        self._told = ""
        return sums, found

    def _exists(self) -> bool:
        """Looking must not make a ledger."""
        if not self._settings.ledger_url.startswith("sqlite"):
            return True
        return Path(ledger_place(self._settings)).exists()

    def _tell(self, line: str) -> None:
        if line != self._told:
            log.warning("metrics: the ledger does not answer: %s", line)
        self._told = line


def families(
    counted: Mapping[Metric, Mapping[tuple[str, ...], int]], samples: Iterable[Sample]
) -> Iterator[Family]:
    """What Prometheus's client writes: every metric that has a value, each once."""
    by_metric: dict[Metric, list[tuple[tuple[str, ...], float]]] = defaultdict(list)
    for one in samples:
        by_metric[one.metric].append((one.labels, one.value))
    for metric in metrics.ALL:
        if metric.kind is MetricKind.HISTOGRAM:
            yield _histogram(metric, counted.get(metric, {}))
            continue
        values = by_metric[metric]
        for labels, total in sorted(counted.get(metric, {}).items()):
            values.append((labels, total / metric.scale))
        if values:
            yield _simple(metric, values)


def _by_metric(
    sums: Mapping[Series, int], catalog: Catalog
) -> dict[Metric, dict[tuple[str, ...], int]]:
    """Sums by metric and labels. What alerts go by begins at 0: else Prometheus would see a series
    appear at 1, which is no rise."""
    found: dict[Metric, dict[tuple[str, ...], int]] = defaultdict(dict)
    for metric in metrics.COUNTED:
        if metric.labels == ("lane",) and metric.kind is not MetricKind.HISTOGRAM:
            found[metric] = {(lane,): 0 for lane in catalog.lanes}
    for outcome in metrics.OUTCOMES:
        found[metrics.ATTEMPTS] |= {(lane, outcome): 0 for lane in catalog.lanes}
    found[metrics.WORKER_DEATHS][(QUALITY,)] = 0
    for status in metrics.UNANSWERED:
        kinds = (*known_kinds(catalog), OTHER_KIND)
        found[metrics.SETTLED] |= {(kind, NO_LANE, status): 0 for kind in kinds}
    for (name, *labels), total in sums.items():
        known = metrics.BY_NAME.get(name)
        if known is not None:  # a newer Uptier may count more
            found[known][tuple(labels)] = total
    return found


def _simple(metric: Metric, values: Collection[tuple[tuple[str, ...], float]]) -> Family:
    kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, sums: Mapping[tuple[str, ...], int]) -> Family:
    """Buckets summed up as Prometheus wants them; ``sums`` has each alone, and the times' sum."""
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    by_labels: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for (*names, part), total in sums.items():
        by_labels[tuple(names)][part] = total
    for labels, parts in sorted(by_labels.items()):
        whole = parts.pop(SUM, 0) / metric.scale
        bounds = sorted({*parts, *(f"{bound:g}" for bound in BUCKETS_S), "inf"}, key=float)
        buckets, below = [], 0
        for bound in bounds:
            below += parts.get(bound, 0)
            buckets.append(("+Inf" if bound == "inf" else bound, below))
        family.add_metric(labels, buckets=buckets, sum_value=whole)
    return family
