"""A collector of traces on loopback: takes OTLP over HTTP and keeps every span."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    """A span as it arrived; ids in hex, times in nanoseconds since 1970."""

    trace: str
    id: str
    parent: str
    name: str
    start: int
    end: int
    pid: int
    failed: bool
    links: tuple[str, ...]
    attributes: dict[str, Any] = field(hash=False)


class Collector:
    """What came in."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bytes = b""

    def by_trace(self) -> dict[str, list[Span]]:
        """Spans of each trace, in the order of their beginnings."""
        found: dict[str, list[Span]] = defaultdict(list)
        for span in sorted(self.spans, key=lambda s: s.start):
            found[span.trace].append(span)
        return found

    def take(self, body: bytes) -> None:
        """One request of an exporter."""
        self.bytes += body
        for one in ExportTraceServiceRequest.FromString(body).resource_spans:
            pid = next(a.value.int_value for a in one.resource.attributes if a.key == "process.pid")
            self.spans += [
                Span(
                    span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name,
                    span.start_time_unix_nano, span.end_time_unix_nano, pid, span.status.code == 2,
                    tuple(link.trace_id.hex() for link in span.links),
                    {a.key: _value(a.value) for a in span.attributes},
                )
                for scope in one.scope_spans
                for span in scope.spans
            ]  # fmt: skip


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def collecting() -> Iterator[tuple[str, Collector]]:
    """A collector and its address."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.take(self.rfile.read(int(self.headers["Content-Length"])))
            body = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces", kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
