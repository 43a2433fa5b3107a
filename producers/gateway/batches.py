"""``/v1/batches``: files of requests, answered in the background."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import APIRouter, Query, Request
from pydantic import Field, ValidationError

from ledger.batches import BatchState
from ledger.runs import RunInfo
from producers.batch_lines import CHAT, TEXT
from producers.gateway.answering import gate_of
from producers.gateway.batching import Origin
from producers.gateway.bodies import read_json
from producers.gateway.callers import Caller
from producers.gateway.errors import Fault, fault_of_field
from producers.gateway.files import own_file, page
from producers.gateway.gate import Gate
from producers.gateway.store import StoredFile
from producers.gateway.wishes import Own, wishes_of
from producers.openai_faults import RequestFault, one_of
from routing.decision import Value

router = APIRouter()

PREFIX = "batch_"
WINDOW = re.compile(r"([1-9][0-9]{0,3})h")
HOUR_S = 3_600


class Wanted(Value):
    """What a batch is made of."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] = Field(default_factory=dict, max_length=16)


@router.post("/v1/batches")
async def create(request: Request) -> dict[str, Any]:
    """Begin a batch; its lines are asked soon, each a decision of the batch's own run."""
    gate = gate_of(request)
    caller = gate.keys.caller(request)
    with gate.admitted(caller):
        body = await read_json(request)
        wishes = wishes_of(request.headers, body, caller)
        if wishes.own != Own():
            named = ", ".join(sorted(wishes.own.model_fields_set))
            raise RequestFault("uptier", f"{named} goes into each line: a batch takes wishes of "
                               "the routing")  # fmt: skip
        if body.get("metadata") is None:
            body.pop("metadata", None)
        try:
            wanted = Wanted(**body)
        except ValidationError as error:
            raise fault_of_field(error, "") from None
        file = await own_file(gate, caller, wanted.input_file_id, "input_file_id")
        window = WINDOW.fullmatch(wanted.completion_window)
        if window is None:
            raise RequestFault("completion_window", "must be a number of hours, as 24h")
        origin = Origin(
            owner=caller.name,
            preferences=wishes.preferences,
            input_file_id=file.id,
            endpoint=one_of(wanted.endpoint, "endpoint", (CHAT, TEXT)),
            window=wanted.completion_window,
            window_s=int(window.group(1)) * HOUR_S,
            metadata=wanted.metadata,
        )
        run = await asyncio.to_thread(gate.batching.create, file, origin)
        return await _told(gate, run, origin)


@router.get("/v1/batches")
async def several(
    request: Request, after: str = "", limit: int = Query(default=20, ge=1, le=100)
) -> dict[str, Any]:
    """The caller's batches, the newest first."""
    gate = gate_of(request)
    known = await asyncio.to_thread(gate.batching.all, gate.keys.caller(request))
    found = page([{"id": PREFIX + run.id} for run, _ in known], after, limit)
    wanted = {one["id"] for one in found["data"]}
    found["data"] = [await _told(gate, r, o) for r, o in known if PREFIX + r.id in wanted]
    return found


@router.get("/v1/batches/{batch_id}")
async def one(request: Request, batch_id: str) -> dict[str, Any]:
    """How far a batch is; once it has ended, the files of its results."""
    gate = gate_of(request)
    return await _told(gate, *await _own(gate, gate.keys.caller(request), batch_id))


@router.post("/v1/batches/{batch_id}/cancel")
async def cancel(request: Request, batch_id: str) -> dict[str, Any]:
    """End a batch with what it has."""
    gate = gate_of(request)
    caller = gate.keys.caller(request)
    run, origin = await _own(gate, caller, batch_id)
    state, _ = await asyncio.to_thread(gate.batching.state, run, origin)
    if state.status == "completed":
        raise Fault(409, f"batch {batch_id} is completed already", code="completed",
                    headers={"x-should-retry": "false"})  # fmt: skip
    await asyncio.to_thread(gate.batching.cancel, run)
    return await _told(gate, *await _own(gate, caller, batch_id))


async def _own(gate: Gate, caller: Caller, batch_id: str) -> tuple[RunInfo, Origin]:
    run_id = batch_id.removeprefix(PREFIX)
    found = await asyncio.to_thread(gate.batching.find, run_id, caller)
    if found is None:
        raise Fault(404, f"batch {batch_id!r} is not known", code="not_found", param="batch_id")
    return found


async def _told(gate: Gate, run: RunInfo, origin: Origin) -> dict[str, Any]:
    state, files = await asyncio.to_thread(gate.batching.state, run, origin)
    return _batch(run, origin, state, files)


def _batch(
    run: RunInfo, origin: Origin, state: BatchState, files: dict[str, StoredFile]
) -> dict[str, Any]:
    """A batch as OpenAI tells of it."""
    created = run.created_at // 1_000_000
    status = "in_progress" if state.status == "incomplete" else state.status
    ended = None if state.finished_at is None else int(state.finished_at)
    cancelled = None if run.finished_at is None else run.finished_at // 1_000_000
    failed = state.malformed + state.unanswered
    return {
        "id": PREFIX + run.id,
        "object": "batch",
        "endpoint": origin.endpoint,
        "errors": None,
        "input_file_id": origin.input_file_id,
        "completion_window": origin.window,
        "status": status,
        "output_file_id": _id_of(files.get("output")),
        "error_file_id": _id_of(files.get("errors")),
        "created_at": created,
        "in_progress_at": created,
        "expires_at": created + origin.window_s,
        "completed_at": ended if status == "completed" else None,
        "expired_at": created + origin.window_s if status == "expired" else None,
        "cancelled_at": cancelled if status == "cancelled" else None,
        "request_counts": {
            "total": state.lines,
            "completed": state.settled - state.unanswered,
            "failed": failed,
        },
        "metadata": origin.metadata or None,
        "uptier": {"run": run.id, "cost_usd": state.cost_usd, "by_status": state.by_status},
    }


def _id_of(file: StoredFile | None) -> str | None:
    return None if file is None else file.id
