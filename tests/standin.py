"""A local stand-in of Anthropic's Messages API: real HTTP, scripted outcomes, counted calls."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Reply = dict[str, Any]


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


def fault(status: int, kind: str, **headers: str) -> Reply:
    """An error as the API words it."""
    body = {"type": "error", "error": {"type": kind, "message": kind.replace("_", " ")}}
    return {"status": status, "body": body, "headers": headers}


class MessagesStandin:
    """Serves ``/v1/messages`` on loopback; ``script`` turns the n-th request into a reply.

    A reply with ``hang_s`` keeps the caller waiting for so long. Every request is kept in
    ``requests`` with its headers; ``billed`` counts the answered ones.
    """

    def __init__(self, script: Callable[[int, Reply], Reply]) -> None:
        self.requests: list[Reply] = []
        self.billed = 0
        self._script = script
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def _answer(self, body: Reply, headers: dict[str, str]) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append({"body": body, "headers": headers})
        reply = self._script(number, body)
        if reply["status"] == 200:
            with self._lock:
                self.billed += 1
        return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(size))
                reply = standin._answer(body, {k.lower(): v for k, v in self.headers.items()})
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
