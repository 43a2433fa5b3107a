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
from uvicorn.protocols.http.h11_impl import H11Protocol

from config.errors import ConfigurationError

log = logging.getLogger(__name__)

STOPS = (signal.SIGINT, signal.SIGTERM)
CONNECTIONS_PER_REQUEST = 4
"""Connections that may be open for each request that may be under way; most are kept alive."""

HEAD_S = 20
"""How long the head of a request may take to come; else whoever dawdles holds all connections."""
READ_S = 120
"""How long an answer waits for a client that does not read on."""


class Patience(H11Protocol):
    """A connection that is given up when its client neither asks nor reads."""

    _head: asyncio.TimerHandle | None = None
    _reads: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._head = _cancelled(self._head)
        self._reads = _cancelled(self._reads)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._reads = self._reads or self.loop.call_later(READ_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read on."""
        self._reads = _cancelled(self._reads)
        super().resume_writing()

    def _await_head(self) -> None:
        """Wait for a request's head from its first byte on, however many pieces it comes in."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._head = _cancelled(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_S, self.transport.abort)


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer any more."""
    if timer is not None:
        timer.cancel()
    return None


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

    SIGTERM is how supervisors end what they run: nothing went wrong then, and this returns.

    Raises:
        KeyboardInterrupt: once all is ended after SIGINT.
    """
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Patience,
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
    if server.stopped_by == signal.SIGINT:
        raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """Tells when it serves, and keeps the signals that stop it to itself."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self.stopped_by: int | None = None
        """The first signal; later ones only hasten the end."""

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
        self.stopped_by = self.stopped_by or number
        self.handle_exit(number, frame)
