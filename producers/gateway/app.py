"""The application: routes, bounds, and errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from config.errors import UptierError
from ledger.metrics.page import Page
from producers.gateway import batches, completions, decisions, files, metrics, models
from producers.gateway.bodies import Bounded
from producers.gateway.connection import Gone
from producers.gateway.errors import Fault, fault_of
from producers.gateway.gate import Bounds, Gate

LEFT = 499
"""What nginx logs for a client that closed its connection; it is sent to nobody."""

LEAVING_S = 2


def make_app(
    make_gate: Callable[[], Gate], bounds: Bounds, make_page: Callable[[], Page] | None = None
) -> FastAPI:
    """The gateway; ``make_gate`` is called on the loop that serves it.

    With ``make_page`` it tells Prometheus of its ledger, too.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.gate = gate = make_gate()
        app.state.page = page = None if make_page is None else make_page()
        try:
            yield
        finally:
            await _last_ones_leave(gate)
            await asyncio.to_thread(gate.close)
            if page is not None:
                await asyncio.to_thread(page.close)

    # The pages of documentation would fetch their scripts from elsewhere.
    app = FastAPI(title="Uptier", lifespan=lifespan, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    for module in (completions, models, decisions, files, batches):
        app.include_router(module.router)
    if make_page is not None:
        app.include_router(metrics.router)
    app.add_api_route("/health", health, methods=["GET"])
    for kind in (UptierError, DBAPIError, Exception):
        app.add_exception_handler(kind, _failed)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    for kind in (Gone, ClientDisconnect):
        app.add_exception_handler(kind, _left)
    app.add_middleware(Bounded, most=bounds.body_bytes, files=bounds.file_bytes)
    return app


async def _last_ones_leave(gate: Gate) -> None:
    """Requests that were cancelled a moment ago give their decisions back first."""
    for _ in range(LEAVING_S * 100):
        if not gate.under_way:
            return
        await asyncio.sleep(0.01)


async def health(request: Request) -> Response:
    """Whether requests can be answered; asked without a key, so it tells little."""
    gate: Gate = request.app.state.gate
    failure = gate.hub.failure
    told: dict[str, Any] = {"status": "ok" if failure is None else "failed",
                            "under_way": gate.under_way}  # fmt: skip
    return JSONResponse(told, 200 if failure is None else 503)


async def _failed(_: Request, error: Exception) -> Response:
    return fault_of(error).response()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return Fault(404, f"{request.url.path} is not served here", code="not_found").response()
    return Fault(error.status_code, str(error.detail), headers=error.headers).response()


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:])
    return Fault(400, f"{param}: {first['msg']}", param=param, code="invalid_value").response()


async def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=LEFT)
