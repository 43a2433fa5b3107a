"""A local stand-in of Anthropic's Messages API: real HTTP, scripted outcomes, counted bills."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from config.catalog import Price

Reply = dict[str, Any]
PRICE = Price(input="0.25", output="1.25")
"""That of the cloud model in tests/profiles_scripted.toml."""


def message(text: str, *, tokens_in: int = 120, tokens_out: int = 8) -> Reply:
    """A reply of the Messages API with one block of text."""
    return {
        "status": 200,
        "body": {
            "id": "msg_standin",
            "type": "message",
            "role": "assistant",
            "model": "standin",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": tokens_in, "output_tokens": tokens_out},
        },
    }


def fault(status: int, kind: str, said: str = "", **headers: str) -> Reply:
    """An error as the API words it."""
    error = {"type": kind, "message": said or kind.replace("_", " ")}
    return {"status": status, "body": {"type": "error", "error": error}, "headers": headers}


def models() -> Reply:
    """The list of models, as short as it may be."""
    model = {"id": "standin", "type": "model", "display_name": "Stand-in",
             "created_at": "2025-01-01T00:00:00Z"}  # fmt: skip
    page = {"data": [model], "has_more": False, "first_id": "standin", "last_id": "standin"}
    return {"status": 200, "body": page}


@dataclass(frozen=True)
class Bill:
    """An answered question and its price in micro-dollars."""

    prompt: str
    micros: int


class MessagesStandin:
    """Serves ``/v1/messages`` and ``/v1/models`` on loopback.

    ``script`` turns the n-th question into a reply; a reply with ``hang_s`` keeps the caller
    waiting for so long. ``listing`` is the reply to every look at the models; it may be changed at
    any time. Every question is kept in ``requests`` with its headers. Whatever is answered with
    200 is billed, also when the caller has gone: ``bills`` holds its prompt and price.
    """

    def __init__(self, script: Callable[[int, Reply], Reply], *, price: Price = PRICE) -> None:
        self.requests: list[Reply] = []
        self.bills: list[Bill] = []
        self.looks = 0
        self.listing = models()
        self._script = script
        self._price = price
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, or has listened."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def billed(self) -> int:
        """How many questions were answered."""
        return len(self.bills)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Serve no more; whoever calls from now on finds nobody. May be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def _listed(self) -> Reply:
        with self._lock:
            self.looks += 1
        return self.listing

    def _answered(self, body: Reply, headers: dict[str, str]) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append({"body": body, "headers": headers})
        reply = self._script(number, body)
        if reply["status"] == 200:
            said = reply["body"]
            usage = said.get("usage", {}) if isinstance(said, dict) else {}
            bill = Bill(body["messages"][0]["content"], self._micros(usage))
            with self._lock:
                self.bills.append(bill)
        return reply

    def _micros(self, usage: Reply) -> int:
        return self._price.micros(
            usage.get("input_tokens", 0),
            usage.get("output_tokens", 0),
            usage.get("cache_read_input_tokens", 0),
            usage.get("cache_creation_input_tokens", 0),
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path.split("?")[0] == "/v1/models"
                self._send(standin._listed() if known else fault(404, "not_found_error"))

            def do_POST(self) -> None:
                size = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(size))
                headers = {k.lower(): v for k, v in self.headers.items()}
                self._send(standin._answered(body, headers))

            def _send(self, reply: Reply) -> None:
                time.sleep(reply.get("hang_s", 0))
                data = json.dumps(reply["body"]).encode()
                try:
                    self.send_response(reply["status"])
                    self.send_header("content-type", "application/json")
                    for name, value in reply.get("headers", {}).items():
                        self.send_header(name.replace("_", "-"), value)
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    return

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler
