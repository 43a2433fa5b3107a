"""``/v1/decisions``: what OpenAI's protocol has no words for, asked and looked up as it is."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError

from config.catalog import Catalog
from ledger import lookup
from ledger.lookup import Known
from ledger.money import dollars
from ledger.taken import Usage, usages
from ledger.trail import trail
from producers.gateway.answering import gate_of
from producers.gateway.bodies import read_json
from producers.gateway.callers import Caller
from producers.gateway.connection import while_connected
from producers.gateway.errors import Fault, fault_of_field
from producers.gateway.gate import Gate, headers_of
from producers.gateway.wishes import Wishes, wished, wishes_of
from producers.hub import Ended, Ticket
from producers.openai_chat import AUTO, starting_on
from producers.openai_faults import RequestFault, as_list, as_mapping
from routing.decision import (
    MAX_PROMPT_CHARS,
    Decision,
    Output,
    Settled,
    State,
    TextOutput,
    Value,
    output_for,
)

router = APIRouter()

AT_ONCE = 1_000
"""Decisions of one request."""
OF_REQUEST = frozenset({"decisions", "wait"})


class Asked(Value):
    """What a decision asks, beside what it wishes."""

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS)
    system: str = Field(default="", max_length=MAX_PROMPT_CHARS)
    template: str = Field(default="", max_length=100)
    model: str = AUTO
    text: bool = False
    json_schema: dict[str, Any] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    expected: str | None = None


@router.post("/v1/decisions")
async def ask(request: Request) -> Response:
    """Ask one decision, or many under ``decisions``; ``wait: false`` only submits them."""
    gate = gate_of(request)
    caller = gate.keys.caller(request)
    with ExitStack() as held:
        held.enter_context(gate.admitted(caller))
        body = await read_json(request)
        items, waits = _items(body), body.get("wait", True)
        if not isinstance(waits, bool):
            raise RequestFault("wait", "must be true or false", code="invalid_type")
        asked = [_decision(gate, caller, request, item) for item in items]
        tickets = await while_connected(request, _submitted(gate, asked))
        for ticket in tickets:
            ticket.kept = ticket.kept or not waits
            held.callback(gate.hub.leave, ticket)
        if not waits:
            views = [_accepted(gate, ticket) for ticket in tickets]
            return JSONResponse(_whole(body, views), 202)
        ended = await while_connected(request, _ended(gate, tickets))
        views = [_view(gate, t, e) for t, e in zip(tickets, ended, strict=True)]
        headers = {} if "decisions" in body else headers_of(ended[0], gate.client.run.id)
        return JSONResponse(_whole(body, views), headers=headers)


@router.get("/v1/decisions/{decision_id}")
async def one(request: Request, decision_id: str, wait: bool = False) -> Response:
    """A decision with its plan and attempts; ``wait`` first waits for its end."""
    gate = gate_of(request)
    caller = gate.keys.caller(request)
    await _own(gate, caller, decision_id)
    if wait:
        with gate.admitted(caller), ExitStack() as held:
            ticket = gate.hub.watch(decision_id)
            held.callback(gate.hub.leave, ticket)
            await while_connected(request, gate.reply(ticket))
    return JSONResponse(await asyncio.to_thread(_story, gate, decision_id))


@router.get("/v1/decisions")
async def several(
    request: Request,
    run: str = "",
    after: str = "",
    limit: int = Query(default=100, ge=1, le=1_000),
) -> Response:
    """The decisions of a run, the gateway's own by default, oldest first; ``after`` pages on."""
    gate = gate_of(request)
    caller = gate.keys.caller(request)
    found = await asyncio.to_thread(
        lookup.of_run, gate.client.engine, run or gate.client.run.id, after=after, limit=limit + 1,
        payer=None if gate.keys.is_open else caller.name,
    )  # fmt: skip
    views = await asyncio.to_thread(_views, gate, found[:limit])
    return JSONResponse({"object": "list", "data": views, "has_more": len(found) > limit})


@router.post("/v1/decisions/{decision_id}/cancel")
async def cancel(request: Request, decision_id: str) -> Response:
    """Settle a decision as cancelled, unless it is settled already."""
    gate = gate_of(request)
    await _own(gate, gate.keys.caller(request), decision_id)
    await asyncio.to_thread(gate.client.cancel, [decision_id])
    return JSONResponse(await asyncio.to_thread(_story, gate, decision_id))


def _items(body: dict[str, Any]) -> list[dict[str, Any]]:
    if "decisions" not in body:
        return [{name: value for name, value in body.items() if name not in OF_REQUEST}]
    for name in body:
        if name not in OF_REQUEST:
            raise RequestFault(name, "goes into each of the decisions", code="unknown_parameter")
    given = as_list(body["decisions"], "decisions")
    if len(given) > AT_ONCE:
        raise RequestFault("decisions", f"at most {AT_ONCE} go at once (got {len(given)})")
    return [dict(as_mapping(item, f"decisions[{i}]")) for i, item in enumerate(given)]


def _decision(
    gate: Gate, caller: Caller, request: Request, item: dict[str, Any]
) -> tuple[Decision, Wishes]:
    own = {name: item.pop(name) for name in Asked.model_fields if name in item}
    wishes = wishes_of(request.headers, {"uptier": item}, caller)
    if wishes.own.kind is None:
        raise RequestFault("kind", "is missing: say what sort of question it is")
    try:
        asked = Asked(**own)
        decision = Decision(
            kind=wishes.own.kind,
            prompt=asked.prompt,
            output=_output(asked, wishes, gate.catalog),
            key=wishes.key(caller),
            system=asked.system,
            template=asked.template,
            preferences=starting_on(asked.model, gate.catalog, wishes.preferences),
            seed=asked.seed,
            expected=asked.expected,
        )
    except ValidationError as error:
        raise fault_of_field(error, "") from None
    return wished(decision, wishes, caller), wishes


def _output(asked: Asked, wishes: Wishes, catalog: Catalog) -> Output:
    if wishes.own.choices is not None:
        return TextOutput()  # the wishes put the choices in its place
    return output_for(
        catalog, wishes.own.kind or "", json_schema=asked.json_schema, text=asked.text,
        max_tokens=asked.max_tokens,
    )  # fmt: skip


async def _submitted(gate: Gate, asked: list[tuple[Decision, Wishes]]) -> list[Ticket]:
    """Tickets of all, or of none where one cannot be submitted or the client leaves."""
    jobs = [
        asyncio.ensure_future(gate.submit(decision, kept=wishes.own.key is not None))
        for decision, wishes in asked
    ]
    try:
        return list(await asyncio.gather(*jobs))
    except BaseException:
        for job in jobs:
            job.cancel()
        for found in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(found, Ticket):
                gate.hub.leave(found)
        raise


async def _ended(gate: Gate, tickets: list[Ticket]) -> list[Ended]:
    return list(await asyncio.gather(*(gate.reply(ticket) for ticket in tickets)))


async def _own(gate: Gate, caller: Caller, decision_id: str) -> None:
    """Refuse with 404 what does not exist, or is another key's."""
    found = await asyncio.to_thread(lookup.find, gate.client.engine, [decision_id])
    if not found or not (gate.keys.is_open or found[0].payer == caller.name):
        raise Fault(404, f"decision {decision_id!r} is not known", code="not_found", param="id")


def _story(gate: Gate, decision_id: str) -> dict[str, Any]:
    [known] = lookup.find(gate.client.engine, [decision_id])
    told = trail(gate.client.engine, decision_id)
    [view] = _views(gate, [known])
    attempts = [one.model_dump(mode="json") for one in told.attempts]
    return view | {"plan": told.plan.model_dump(mode="json"), "attempt_list": attempts}


def _views(gate: Gate, known: list[Known]) -> list[dict[str, Any]]:
    ended = [one.settled for one in known if one.settled is not None]
    used = usages(gate.client.engine, ended, gate.catalog)
    return [_told(k.id, k.run_id, k.key, k.kind, k.state, k.settled, used.get(k.id)) for k in known]


def _view(gate: Gate, ticket: Ticket, ended: Ended) -> dict[str, Any]:
    settled = ended.settled
    return _told(settled.id, gate.client.run.id, settled.key, settled.kind, State.SETTLED, settled,
                 ended.usage)  # fmt: skip


def _accepted(gate: Gate, ticket: Ticket) -> dict[str, Any]:
    assert ticket.decision is not None
    key, kind = ticket.decision.key, ticket.decision.kind
    return _told(ticket.id, gate.client.run.id, key, kind, State.QUEUED, None, None)


def _told(
    decision_id: str, run_id: str, key: str, kind: str, state: State,
    settled: Settled | None, usage: Usage | None,
) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = {"id": decision_id, "object": "uptier.decision", "run": run_id,
                             "key": key, "kind": kind, "state": state.value}  # fmt: skip
    if settled is None or usage is None:
        return found | {"status": None, "answer": None}
    return found | {
        "status": settled.status.value,
        "answer": settled.answer,
        "reason": settled.reason,
        "p_answer": settled.p_answer,
        "tier": usage.tier,
        "lane": settled.lane,
        "model": usage.model,
        "attempts": usage.attempts,
        "climbs": settled.climbs,
        "cost_usd": dollars(settled.cost_micros),
        "tokens": {"input": usage.tokens_in, "cached": usage.tokens_cached,
                   "output": usage.tokens_out},
    }  # fmt: skip


def _whole(body: dict[str, Any], views: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": views} if "decisions" in body else views[0]
