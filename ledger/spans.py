"""Spans of decisions for OpenTelemetry; imported only where they are told (tracing.py)."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from ledger.records import Ended

ROOT = "decision"
EXPORT_EVERY_MS = 1_000
EXPORT_TIMEOUT_S = 5
END_WITHIN_MS = 3_000
MOST_KEPT = 65_536
"""Spans that wait to be sent; whoever submits thousands at once tells as many in a moment."""
SAMPLED = TraceFlags(TraceFlags.SAMPLED)
Attributes = Mapping[str, str | int | float | bool | None]


class Spans:
    """Tells spans of this process to a collector; any thread may use it."""

    def __init__(self, url: str, share: float) -> None:
        self._share = share
        self._ids = _Ids()
        resource = Resource.create(
            {
                "service.name": "uptier",
                "service.instance.id": os.environ.get("UPTIER_WORKER_NAME", "producer"),
                "process.pid": os.getpid(),
            }
        )
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter, max_queue_size=MOST_KEPT, schedule_delay_millis=EXPORT_EVERY_MS
            )
        )
        self._tracer = self._provider.get_tracer("uptier")

    def hop(
        self,
        name: str,
        decision_id: str,
        began: int,
        ended: int,
        attributes: Attributes,
        *,
        failed: bool = False,
    ) -> None:
        """A part of a decision's way, from ``began`` to ``ended`` in microseconds since 1970."""
        if not self._wants(decision_id):
            return
        span = self._tracer.start_span(
            name,
            set_span_in_context(NonRecordingSpan(_root_of(decision_id))),
            start_time=began * 1000,
            attributes=_named(attributes),
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(max(began, ended) * 1000)

    def settled(self, ended: Iterable[Ended]) -> None:
        """The root spans of decisions that settled; a question about an answer links to its own."""
        for one in ended:
            if not self._wants(one.id):
                continue
            attributes: Attributes = {
                "decision": one.id, "run": one.run_id, "kind": one.kind, "status": one.status,
                "lane": one.lane, "climbs": one.climbs, "cost_usd": one.cost_micros / 1_000_000,
            }  # fmt: skip
            links = [Link(_root_of(one.parent_id))] if one.parent_id is not None else []
            with self._ids.given(_root_of(one.id)):
                span = self._tracer.start_span(
                    ROOT,
                    Context(),
                    start_time=one.created_at * 1000,
                    attributes=_named(attributes),
                    links=links,
                )
            span.end(max(one.created_at, one.settled_at) * 1000)

    def flush(self) -> None:
        """Send what was told so far, as far as the collector takes it."""
        self._provider.force_flush(END_WITHIN_MS)

    def close(self) -> None:
        """Send what is left."""
        self.flush()
        self._provider.shutdown()

    def _wants(self, decision_id: str) -> bool:
        """Whether this decision is traced; every process says the same of it."""
        return self._share >= 1 or _digest(decision_id)[1] < self._share * 2**64


class _Ids(RandomIdGenerator):
    """Random ids, except where a root span's are given."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def given(self, context: SpanContext) -> Iterator[None]:
        self._local.context = context
        try:
            yield
        finally:
            self._local.context = None

    def generate_trace_id(self) -> int:
        given: SpanContext | None = getattr(self._local, "context", None)
        return super().generate_trace_id() if given is None else given.trace_id

    def generate_span_id(self) -> int:
        given: SpanContext | None = getattr(self._local, "context", None)
        return super().generate_span_id() if given is None else given.span_id


def _root_of(decision_id: str) -> SpanContext:
    return SpanContext(
        int(decision_id, 16), _digest(decision_id)[0], is_remote=True, trace_flags=SAMPLED
    )


def _digest(decision_id: str) -> tuple[int, int]:
    """The root span's id, and a number below 2**64 that chance decides by.

    Samplers go by the low half of a trace's id, which begins with the same bits in every UUIDv7.
    """
    digest = hashlib.sha256(decision_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1, int.from_bytes(digest[8:16], "big")


def _named(attributes: Attributes) -> dict[str, str | int | float | bool]:
    return {f"uptier.{name}": value for name, value in attributes.items() if value is not None}
