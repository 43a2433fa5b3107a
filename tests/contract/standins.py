"""A local stand-in of a server: real HTTP in its protocol, scripted outcomes, kept questions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.contract.protocols import Answer, Asked, Wording


@dataclass(frozen=True)
class Fault:
    """An error of the server, in its own words."""

    status: int
    kind: str = "some_error"
    said: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """A 200 that holds whatever is written here; what is no text is sent as JSON."""

    body: Any
    content_type: str = "application/json"


@dataclass(frozen=True)
class Late:
    """An answer that takes so many seconds."""

    answer: Answer
    seconds: float


@dataclass(frozen=True)
class Events:
    """A stream of server-sent events; torn where ``whole`` is not set."""

    events: tuple[dict[str, Any], ...]
    whole: bool = True


@dataclass(frozen=True)
class Torn:
    """A stream that ends after so many chunks, with an error of the server if it ``says`` one."""

    answer: Answer
    chunks: int
    says: str | None = None


@dataclass(frozen=True)
class _Chunks:
    """The chunks of a stream as they are sent; torn where ``whole`` is not set."""

    chunks: tuple[str, ...]
    whole: bool = True


Outcome = Answer | Fault | Raw | Late | Events | Torn
Script = Callable[[Asked], Outcome]


class Standin:
    """Serves one protocol on loopback. ``looking``, if set, answers every look at the server."""

    def __init__(self, wording: Wording, script: Script) -> None:
        self.asked: list[Asked] = []
        self.looks: list[str] = []
        self.looking: Fault | None = None
        self._wording = wording
        self._script = script
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"standin": self})
        )
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    @property
    def url(self) -> str:
        """Where it listens, or has listened."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Serve no more; may be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=5)
        self._server.server_close()

    def _get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        self.looks.append(path)
        if self.looking is not None:
            return self._fault(self.looking)
        found = self._wording.get(path)
        return (200, found, {}) if found is not None else self._fault(Fault(404))

    def _post(
        self, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[int, Any, dict[str, str]]:
        aside = self._wording.aside(path, body)
        if aside is not None:
            return 200, aside, {}
        if not self._wording.chat(path):
            return self._fault(Fault(404))
        asked = self._wording.asked(body, headers)
        self.asked.append(asked)
        outcome = self._script(asked)
        if isinstance(outcome, Late):
            time.sleep(outcome.seconds)
            outcome = outcome.answer
        if isinstance(outcome, Fault):
            return self._fault(outcome)
        if isinstance(outcome, Events):
            return 200, outcome, {"content-type": "text/event-stream"}
        if isinstance(outcome, Raw):
            return 200, outcome.body, {"content-type": outcome.content_type}
        if isinstance(outcome, Torn) or body.get("stream") is True:
            return 200, self._chunks(body, outcome), {"content-type": "text/event-stream"}
        return 200, self._wording.answered(body, outcome), {}

    def _chunks(self, body: Any, outcome: Answer | Torn) -> _Chunks:
        if isinstance(outcome, Answer):
            return _Chunks(tuple(self._wording.streamed(body, outcome)))
        chunks = self._wording.streamed(body, outcome.answer)[: outcome.chunks]
        if outcome.says is not None:
            chunks.append(self._wording.broken(outcome.says))
        return _Chunks(tuple(chunks), whole=outcome.says is not None)

    def _fault(self, fault: Fault) -> tuple[int, Any, dict[str, str]]:
        return (
            fault.status,
            self._wording.refused(fault.status, fault.kind, fault.said),
            fault.headers,
        )


class _Handler(BaseHTTPRequestHandler):
    """Reads requests for a stand-in and writes what it says."""

    standin: Standin
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet

    def do_GET(self) -> None:
        self._send(*self.standin._get(self.path.split("?")[0]))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        headers = {k.lower(): v for k, v in self.headers.items()}
        self._send(*self.standin._post(self.path.split("?")[0], body, headers))

    def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
        if isinstance(body, Events):
            events = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in body.events]
            self._stream(_Chunks(tuple(events), body.whole), headers)
            return
        if isinstance(body, _Chunks):
            self._stream(body, headers)
            return
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        try:
            self.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            return

    def _stream(self, body: _Chunks, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "transfer-encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for chunk in body.chunks:
                data = chunk.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
        except OSError:  # the caller has gone
            self.close_connection = True
            return
        if body.whole:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return
