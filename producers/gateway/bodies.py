"""Bodies of requests: bounded, and read as one JSON object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp as App
from starlette.types import Message, Receive, Scope, Send

from producers.gateway.errors import Fault
from producers.openai_faults import RequestFault

DRAIN_BYTES = 64 << 20
DRAIN_S = 5
"""How much, and for how long, is still read of a body that is too long, so that its sender hears
why it is refused: one that is cut off in mid-sentence sees but a broken connection."""

SILENCE_S = 30
"""How long the next part of a body is waited for."""
LEAST_RATE = 16 << 10
"""Bytes a second that a body has to come in with on the whole, once these seconds are over."""


class Bounded:
    """Middleware that refuses bodies above a bound; ``files`` is the bound for uploads."""

    def __init__(self, app: App, most: int, files: int) -> None:
        self._app = app
        self._most = most
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._files if scope["path"] == "/v1/files" else self._most
        await self._app(scope, _Count(scope, receive, most), send)


class _Count:
    def __init__(self, scope: Scope, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._seen = 0
        self._complete = False
        self._begun: float | None = None
        lengths = [v for k, v in scope["headers"] if k == b"content-length"]
        self._announced = int(lengths[0]) if lengths and lengths[0].isdigit() else 0

    async def __call__(self) -> Message:
        if self._announced > self._most and self._seen == 0:
            await self._refuse()
        message = await self._next()
        if message["type"] == "http.request":
            self._complete = not message.get("more_body")
            self._seen += len(message.get("body", b""))
            if self._seen > self._most:
                if message.get("more_body"):
                    await self._refuse()
                raise too_long(self._most)
        return message

    async def _next(self) -> Message:
        if self._complete:  # what comes now is that the client leaves
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._patience()):
                return await self._receive()
        except TimeoutError:
            raise Fault(408, f"no more of the body came within {SILENCE_S} s: send it again",
                        code="request_timeout") from None  # fmt: skip

    def _patience(self) -> float:
        """Until when the next part is waited for, in the loop's time."""
        now = asyncio.get_running_loop().time()
        if self._begun is None:
            self._begun = now
        return min(now, self._begun + self._seen / LEAST_RATE) + SILENCE_S

    async def _refuse(self) -> NoReturn:
        try:
            async with asyncio.timeout(DRAIN_S):
                while self._seen < DRAIN_BYTES:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        raise ClientDisconnect
                    self._seen += len(message.get("body", b""))
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            pass
        raise too_long(self._most)


def too_long(most: int) -> Fault:
    """A body above its bound."""
    return Fault(413, f"the body has more than {most} bytes: send less at once",
                 code="request_too_large")  # fmt: skip


async def read_json(request: Request) -> dict[str, Any]:
    """The body as an object.

    Raises:
        Fault: it is too long.
        RequestFault: it is no JSON, no object, or holds text that is no Unicode.
    """
    raw = b"".join([chunk async for chunk in _chunks(request)])
    try:
        body = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RequestFault("body", f"is no JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise RequestFault("body", "must be a JSON object", code="invalid_type")
    if b"\\ud" in raw.lower():
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise RequestFault("body", "holds half a character (a lone surrogate)") from None
    return body


def _chunks(request: Request) -> AsyncIterator[bytes]:
    return request.stream()


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
