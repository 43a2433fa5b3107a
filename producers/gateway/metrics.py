"""``/metrics``: the ledger's page for Prometheus, for those who are let in."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from ledger.metrics.page import CONTENT_TYPE, Page
from producers.gateway.answering import gate_of

router = APIRouter()


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """The page of `uptier metrics`. It tells what is spent, so it asks for a key like the rest."""
    gate_of(request).keys.caller(request)
    page: Page = request.app.state.page
    return Response(await asyncio.to_thread(page.text), media_type=CONTENT_TYPE)
