"""Bodies of requests: bounded in length, and given up when they stop coming."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Request

from producers.gateway import bodies
from producers.gateway.bodies import Bounded, read_json
from producers.gateway.errors import Fault
from producers.openai_faults import RequestFault


class Sender:
    """A client that sends chunks, and then nothing."""

    def __init__(self, *chunks: bytes, ends: bool = True) -> None:
        self.chunks = list(chunks)
        self.ends = ends

    async def receive(self) -> dict[str, Any]:
        if not self.chunks:
            await asyncio.Event().wait()
        chunk = self.chunks.pop(0)
        more = bool(self.chunks) or not self.ends
        return {"type": "http.request", "body": chunk, "more_body": more}


def read(sender: Sender, *, path: str = "/v1/x", length: int | None = None) -> Any:
    """What an application behind a bound of 10 bytes (20 for files) gets of a body."""
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(await read_json(Request(scope, receive)))

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(Bounded(app, most=10, files=20)(scope, sender.receive, None))  # type: ignore[arg-type]
    return found[0]


def test_a_body_within_its_bound_is_read() -> None:
    assert read(Sender(b'{"a"', b": 123}")) == {"a": 123}
    assert read(Sender(b'{"a": 123456}'), path="/v1/files") == {"a": 123456}


@pytest.mark.parametrize("body", [b'{"\xed\xa0\x80":1}', '{"a":1}'.encode("utf-16-le")[:10]])
def test_a_body_that_is_not_utf_8_is_refused(body: bytes) -> None:
    with pytest.raises(RequestFault, match="no JSON"):
        read(Sender(body))


@pytest.mark.parametrize("length", [None, 1_000])
def test_a_body_above_it_is_heard_to_its_end_and_refused(length: int | None) -> None:
    sender = Sender(*[b"x" * 8] * 5)
    with pytest.raises(Fault) as error:
        read(sender, length=length)
    assert error.value.status == 413
    assert sender.chunks == []


def test_a_sender_who_drips_is_not_waited_for_to_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.05)
    monkeypatch.setattr(bodies, "LEAST_RATE", 1_000)

    class Dripping(Sender):
        async def receive(self) -> dict[str, Any]:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b"", "more_body": True}

    with pytest.raises(Fault) as error:
        read(Dripping())
    assert error.value.status == 408


def test_a_sender_who_stops_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.01)
    with pytest.raises(Fault) as error:
        read(Sender(b"{", ends=False))
    assert error.value.status == 408
    monkeypatch.setattr(bodies, "DRAIN_S", 0.01)
    with pytest.raises(Fault) as error:
        read(Sender(b"x" * 20, ends=False), length=1_000)
    assert error.value.status == 413
