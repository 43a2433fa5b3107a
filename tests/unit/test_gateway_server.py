"""Connections whose clients dawdle are given up, others are not; how serving ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from producers.gateway import server
from producers.gateway.server import Patience, bound_socket
from producers.gateway.server import serve as serve_http

LONG = b"x" * (8 << 20)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with little, or with more than any buffer holds."""
    long = scope["path"] == "/long"
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-length", str(len(LONG) * 4 if long else 2).encode())]})  # fmt: skip
    for left in range(3, -1, -1) if long else ():
        await send({"type": "http.response.body", "body": LONG, "more_body": left > 0})
    if not long:
        await send({"type": "http.response.body", "body": b"ok"})


Scene = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


def play(scene: Scene) -> Any:
    """A client's part on a connection of its own."""

    async def both() -> Any:
        config = uvicorn.Config(app, http=Patience, lifespan="off", log_config=None)
        config.load()
        made = uvicorn.Server(config)
        made.lifespan = config.lifespan_class(config)
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(
            lambda: Patience(config=config, server_state=made.server_state, app_state={}),
            "127.0.0.1", 0,
        )  # fmt: skip
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            found = await asyncio.wait_for(scene(reader, writer), 20)
            while made.server_state.connections:
                await asyncio.sleep(0.01)
            return found
        finally:
            writer.close()
            listening.close()

    return asyncio.run(asyncio.wait_for(both(), 25))


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server hangs up."""
    found = bytearray()
    try:
        while chunk := await reader.read(65_536):
            found += chunk
    except ConnectionResetError:
        pass
    return bytes(found)


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nhost: a\r\nx-y: "])
def test_a_head_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.1)

    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(first)
        return await ended(reader)

    assert play(scene) == b""


def test_a_head_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.2)

    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
        ending = asyncio.ensure_future(ended(reader))
        while not ending.done():
            writer.write(b"y")
            await asyncio.sleep(0.02)
        return ending.result()

    assert play(scene) == b""


def test_an_answer_that_takes_its_time_and_the_next_request_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.1)

    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        for path in (b"/slow", b"/"):
            writer.write(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        return await ended(reader)

    assert play(scene) == b""


def test_who_does_not_read_his_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_S", 0.2)

    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n")

    play(scene)  # it ends, because no connection is left


def test_who_reads_all_of_it_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_S", 15)

    async def scene(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        writer.write(b"GET /long HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        return len(await ended(reader))

    assert play(scene) > 4 * len(LONG)


def served_until(*numbers: signal.Signals) -> None:
    """Serve, and send these signals to ourselves as soon as it serves."""

    def told() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    with bound_socket("127.0.0.1", 0) as listener:
        serve_http(FastAPI(), listener, grace_s=1, max_concurrent=1, ready=told)


def test_a_supervisors_stop_is_no_interruption_and_ctrl_c_is() -> None:
    before = signal.getsignal(signal.SIGTERM)
    served_until(signal.SIGTERM)
    for numbers in ([signal.SIGINT], [signal.SIGINT, signal.SIGTERM]):
        with pytest.raises(KeyboardInterrupt):
            served_until(*numbers)
    assert signal.getsignal(signal.SIGTERM) == before
