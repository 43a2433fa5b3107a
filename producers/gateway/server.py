"""Serves the gateway over HTTP until it is told to stop; what is under way is finished first."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from config.errors import ConfigurationError

log = logging.getLogger(__name__)

STOPS = (signal.SIGINT, signal.SIGTERM)
CONNECTIONS_PER_REQUEST = 4
"""Connections that may be open for each request that may be under way; most are kept alive."""


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet.

    Raises:
        ConfigurationError: the address is taken, or none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"--host {host!r} is no address: {error.strerror}") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"port {port} is taken: choose another --port") from None
        raise ConfigurationError(
            f"--host {host!r} --port {port} cannot be bound: {error.strerror}"
        ) from None
    return found


def serve(
    app: FastAPI,
    listener: socket.socket,
    *,
    grace_s: int,
    max_concurrent: int,
    ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM. Requests under way get ``grace_s`` to end, then they are
    cancelled; a second signal does not wait for them.

    Raises:
        KeyboardInterrupt: once all is ended after such a signal.
    """
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace_s,
        limit_concurrency=CONNECTIONS_PER_REQUEST * max_concurrent,
        backlog=max(128, max_concurrent),
    )
    server = _Server(config, ready)
    asyncio.run(server.serve(sockets=[listener]))
    if server.stopped_by is not None:
        raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """Tells when it serves, and keeps the signals that stop it to itself."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self.stopped_by: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if not self.should_exit:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop by signals while serving; they are not raised again afterwards."""
        before: dict[int, Any] = {number: signal.getsignal(number) for number in STOPS}
        for number in STOPS:
            signal.signal(number, self._stop)
        try:
            yield
        finally:
            for stop, handler in before.items():
                signal.signal(stop, handler)

    def _stop(self, number: int, frame: Any) -> None:
        self.stopped_by = number
        self.handle_exit(number, frame)
