"""A TCP proxy that can stop forwarding what passes through it without closing anything."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

CHUNK = 65_536


class Proxy:
    """Forwards connections on loopback to ``port``. New ones pass also during a stall."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stalled: set[int] = set()
        self._open: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._count = 0
        self._news = threading.Condition()
        self._closed = False

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        with self._news:
            self._closed = True
            self._news.notify_all()
            pairs = list(self._open.values())
        for pair in pairs:
            _close(pair)

    def stall(self) -> int:
        """Leave all open connections half-open; returns how many there are."""
        with self._news:
            self._stalled |= self._open.keys()
            return len(self._stalled)

    def go_on(self) -> None:
        """Forward again what was held back."""
        with self._news:
            self._stalled.clear()
            self._news.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self._news:
                self._count += 1
                number, pair = self._count, (near, far)
                self._open[number] = pair
            for source, sink in (pair, pair[::-1]):
                threading.Thread(
                    target=self._forward, args=(number, source, sink), daemon=True
                ).start()

    def _forward(self, number: int, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                self._wait(number)
                sink.sendall(data)
        self._wait(number)  # a close, too, is not heard of during a stall
        with self._news:
            self._open.pop(number, None)
        _close((source, sink))

    def _wait(self, number: int) -> None:
        with self._news:
            self._news.wait_for(lambda: self._closed or number not in self._stalled)


def _close(pair: tuple[socket.socket, socket.socket]) -> None:
    for one in pair:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
