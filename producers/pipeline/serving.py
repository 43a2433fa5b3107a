"""The two specialists over HTTP as llama-server speaks it: one port each, on loopback."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping

import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from config.catalog import Catalog
from config.errors import InputError, UptierError
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
GRACE_S = 10
"""For calls under way when the server is stopped."""

NewCaller = Callable[[], Caller]


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


def make_app(roles: Mapping[int, Role], roster: Roster, new_caller: NewCaller) -> FastAPI:
    """The application; the port that a call comes in at says whom it is for."""
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
        answer = asyncio.ensure_future(
            run_in_threadpool(_ask, new_caller(), body, role_of(request))
        )
        if body.stream:
            return StreamingResponse(_stream(body, answer), media_type="text/event-stream")
        try:
            return JSONResponse(completion(body, await answer))
        except InputError as error:
            return _refusal(400, str(error))
        except UptierError as error:
            return _refusal(503, str(error))

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


async def _stream(body: Body, answer: asyncio.Future[Heard]) -> AsyncIterator[bytes]:
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
