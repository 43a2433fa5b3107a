"""The two specialists over HTTP as llama-server speaks it: one port each, on loopback."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import uvicorn
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from config.catalog import Catalog
from config.errors import InputError, UptierError
from producers.asking import Asker, Cancelling, Leaving
from producers.gateway.connection import until_gone
from producers.pipeline.caller import Caller, Heard
from producers.pipeline.completions import ANY, Body, completion, fault, pieces, read_body
from producers.pipeline.roster import Roster
from producers.pipeline.steps import Role

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
NAMES = ["localhost", HOST]
"""What a call may name as its host, so that no web page can point a name of its own here."""
MOST_BYTES = 1 << 20
"""Of a call's body."""
KEEP_ALIVE_S = 10.0
"""After so long without an answer a stream gets a comment, that nobody takes it for dead."""
GONE = 499
"""What nginx logs for a client that closed its connection; it is sent to nobody."""
GRACE_S = 10
"""For calls under way when the server is stopped."""

AT_ONCE = 64
"""Questions under way; more wait, and a call to ``/health`` waits for none of them."""

NewCaller = Callable[[Asker], Caller]


def bound(role: Role, port: int, catalog: Catalog) -> socket.socket:
    """A socket on a loopback port; 0 takes a free one.

    Raises:
        InputError: the port is taken, also by a model's server that is not up yet.
    """
    option = f"--port-{role.value}"
    for name, provider in catalog.providers.items():
        if port and provider.base_url is not None and f":{port}" in provider.base_url:
            raise InputError(
                f"{option} {port} is that of provider {name} of profile {catalog.profile}: give "
                f"another, such as {option} {port + 1000}"
            )
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        cause = "is in use" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
        raise InputError(f"{option} {port} {cause}: give another, or 0 for any") from None
    return found


def make_app(
    roles: Mapping[int, Role], roster: Roster, asker: Cancelling, new_caller: NewCaller
) -> FastAPI:
    """The application; the port that a call comes in at says whom it is for."""
    threads = CapacityLimiter(AT_ONCE)
    app = FastAPI(title="Uptier pipeline", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES)

    def role_of(request: Request) -> Role:
        return roles[request.scope["server"][1]]

    @app.get("/health")
    @app.get("/v1/health")
    async def health(request: Request) -> Response:
        role = role_of(request)
        well = await run_in_threadpool(roster.healthy)
        if well[role]:
            return JSONResponse({"status": "ok"})
        lane = roster.desks[role].lane
        return _refusal(503, f"no worker serves lane {lane}")

    @app.post("/completion")
    @app.post("/completions")
    async def complete(request: Request) -> Response:
        try:
            body = read_body(await _raw(request))
        except InputError as error:
            return _refusal(400, str(error))
        except ClientDisconnect:
            return Response(status_code=GONE)
        guest = Leaving(asker)
        answer = asyncio.ensure_future(
            run_sync(_ask, new_caller(guest), body, role_of(request), limiter=threads)
        )
        if body.stream:
            return _Stream(_events(body, answer), lambda: _give_up(answer, guest))
        try:
            heard = await _while_there(request, answer, guest)
        except InputError as error:
            return _refusal(400, str(error))
        except UptierError as error:
            return _refusal(503, str(error))
        return JSONResponse(completion(body, heard)) if heard else Response(status_code=GONE)

    return app


def serve(app: FastAPI, sockets: list[socket.socket], ready: Callable[[], None]) -> None:
    """Answer calls until SIGINT or SIGTERM; those under way are finished first."""
    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None,
        access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    try:
        _Server(config, ready).run(sockets)
    except KeyboardInterrupt:  # the signal, which the server raises again when it has ended
        log.info("stopped by a signal")


class _Server(uvicorn.Server):
    """Tells when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self._ready()


def _ask(caller: Caller, body: Body, role: Role) -> Heard:
    seed = secrets.randbits(31) if body.seed == ANY else body.seed
    return caller.complete(
        body.prompt, role, max_tokens=body.max_tokens, temperature=body.temperature,
        stops=tuple(body.stop or ()), seed=seed,
    )  # fmt: skip


async def _raw(request: Request) -> bytes:
    """The body.

    Raises:
        InputError: it is too long.
    """
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise InputError(f"the body has more than {MOST_BYTES} bytes: send a shorter prompt")
    return bytes(raw)


async def _while_there(
    request: Request, answer: asyncio.Future[Heard], guest: Leaving
) -> Heard | None:
    """The answer; ``None`` if the client left before it was there, who is not answered then."""
    leaving = asyncio.ensure_future(until_gone(request))
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        leaving.cancel()
        _give_up(answer, guest)


def _give_up(answer: asyncio.Future[Heard], guest: Leaving) -> None:
    """Cancel what nobody waits for any more. The thread that waits for it ends by that alone, so
    nothing here waits for it."""
    if answer.done():
        return
    answer.add_done_callback(_unheard)
    asyncio.get_running_loop().run_in_executor(None, guest.leave).add_done_callback(_unheard)


def _unheard(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and not isinstance(future.exception(), UptierError | None):
        log.warning("what a client left behind: %s", future.exception())


class _Stream(StreamingResponse):
    """A stream that is over when it has ended, broken off, or never begun."""

    def __init__(self, events: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _events(body: Body, answer: asyncio.Future[Heard]) -> AsyncIterator[bytes]:
    """Server-sent events. The text comes once it is checked, as it may climb a tier before."""
    while True:
        done, _ = await asyncio.wait([answer], timeout=KEEP_ALIVE_S)
        if done:
            break
        yield b": waiting\n\n"
    try:
        whole = completion(body, answer.result())
    except UptierError as error:
        yield _event(fault(503, str(error)))
        return
    for piece in pieces(whole):
        yield _event(piece)


def _event(value: object) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _refusal(code: int, message: str) -> JSONResponse:
    return JSONResponse(fault(code, message), status_code=code)
