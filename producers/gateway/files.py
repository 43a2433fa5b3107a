"""``/v1/files``: what batches are made of, and what comes of them."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from producers.gateway.answering import gate_of
from producers.gateway.callers import Caller
from producers.gateway.errors import Fault
from producers.gateway.gate import Gate
from producers.gateway.store import StoredFile
from producers.openai_faults import RequestFault

router = APIRouter()

PURPOSES = ("batch",)


@router.post("/v1/files")
async def upload(request: Request) -> dict[str, Any]:
    """Keep a file of JSON lines for a batch."""
    gate = gate_of(request)
    caller = gate.keys.caller(request)
    with gate.admitted(caller):
        try:
            form = await request.form(max_files=1, max_fields=8)
        except HTTPException as error:  # multipart that is none
            raise RequestFault("body", str(error.detail)) from None
        try:
            found = await _kept(gate, caller, form)
        finally:
            await form.close()
    return told(found)


async def _kept(gate: Gate, caller: Caller, form: FormData) -> StoredFile:
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise RequestFault("file", "is missing: send the file as multipart/form-data")
    if purpose not in PURPOSES:
        raise RequestFault("purpose", f"must be {' or '.join(PURPOSES)} (got {purpose!r})")
    return await asyncio.to_thread(
        gate.store.add, file.file, owner=caller.name, filename=file.filename or "file",
        purpose=str(purpose),
    )  # fmt: skip


@router.get("/v1/files")
async def several(
    request: Request,
    purpose: str = "",
    after: str = "",
    limit: int = Query(default=10_000, ge=1, le=10_000),
    order: str = Query(default="desc", pattern="^(asc|desc)$"),
) -> dict[str, Any]:
    """The caller's files."""
    gate = gate_of(request)
    caller = gate.keys.caller(request)
    found = [
        one
        for one in await asyncio.to_thread(gate.store.all)
        if one.owner == caller.name and purpose in ("", one.purpose)
    ]
    return page([told(one) for one in (found if order == "desc" else found[::-1])], after, limit)


@router.get("/v1/files/{file_id}")
async def one(request: Request, file_id: str) -> dict[str, Any]:
    """What is known of a file."""
    gate = gate_of(request)
    return told(await own_file(gate, gate.keys.caller(request), file_id, "file_id"))


@router.get("/v1/files/{file_id}/content")
async def content(request: Request, file_id: str) -> Response:
    """A file as it was uploaded, or the results of a batch."""
    gate = gate_of(request)
    found = await own_file(gate, gate.keys.caller(request), file_id, "file_id")
    return FileResponse(gate.store.data(found.id), media_type="application/octet-stream")


@router.delete("/v1/files/{file_id}")
async def remove(request: Request, file_id: str) -> dict[str, Any]:
    """Forget a file. A batch that is still reading it ends with what it has read."""
    gate = gate_of(request)
    found = await own_file(gate, gate.keys.caller(request), file_id, "file_id")
    await asyncio.to_thread(gate.store.remove, found.id)
    return {"id": found.id, "object": "file", "deleted": True}


async def own_file(gate: Gate, caller: Caller, file_id: str, param: str) -> StoredFile:
    """A file of the caller's.

    Raises:
        Fault: 404 for one that is none, or another's.
    """
    found = await asyncio.to_thread(gate.store.find, file_id)
    if found is None or found.owner != caller.name:
        raise Fault(404, f"file {file_id!r} is not known", code="not_found", param=param)
    return found


def told(file: StoredFile) -> dict[str, Any]:
    """A file as OpenAI tells of it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "expires_at": None,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


def page(found: list[dict[str, Any]], after: str, limit: int) -> dict[str, Any]:
    """One page of a list, from the one after ``after`` on."""
    ids = [one["id"] for one in found]
    if after and after not in ids:
        raise RequestFault("after", f"{after!r} is not in the list")
    rest = found[ids.index(after) + 1 :] if after else found
    return {
        "object": "list",
        "data": rest[:limit],
        "first_id": rest[0]["id"] if rest else None,
        "last_id": rest[:limit][-1]["id"] if rest else None,
        "has_more": len(rest) > limit,
    }
