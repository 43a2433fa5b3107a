"""Serves the page over HTTP: a thread of whatever process runs the stack, or its own command."""

from __future__ import annotations

import errno
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from config.errors import ConfigurationError
from config.settings import Settings
from ledger.metrics.page import CONTENT_TYPE, Page

log = logging.getLogger(__name__)

PATHS = ("/metrics", "/")
REQUEST_TIMEOUT_S = 10
"""A client that says nothing for so long is left."""


@contextmanager
def served(settings: Settings, host: str, port: int, *, names: str) -> Iterator[str]:
    """The page under an address for as long as the block lasts; 0 takes a free port.

    ``names`` are the options that gave host and port, for a fault.

    Raises:
        ConfigurationError: the port is taken, or the address is none of this machine.
    """
    page = Page(settings)
    try:
        server = _Server((host, port), page)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"{names}: port {port} is taken: choose another") from None
        why = error.strerror or str(error)
        raise ConfigurationError(f"{names}: {host}:{port} cannot be bound: {why}") from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=REQUEST_TIMEOUT_S)
        page.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: Page) -> None:
        self.page = page
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind; the parent's would ask a name server what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that hangs up is nobody's fault; whatever else it is goes into the log."""
        hung_up = isinstance(sys.exc_info()[1], ConnectionError | TimeoutError)
        level = logging.DEBUG if hung_up else logging.WARNING
        log.log(level, "metrics: a request failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    server_version = "uptier"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a scrape; anything else is not here."""
        assert isinstance(self.server, _Server)
        known = self.path.partition("?")[0] in PATHS
        body = self.server.page.text() if known else b"the page is at /metrics\n"
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not told: there is one every few seconds."""
        log.debug("metrics: " + format, *args)
