"""One question over HTTP: translated, let in, submitted, answered whole or as a stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from config.catalog import Catalog, OutputType
from producers.gateway.bodies import read_json
from producers.gateway.callers import Caller
from producers.gateway.connection import while_connected
from producers.gateway.gate import Gate, headers_of
from producers.gateway.pieces import can_be_told
from producers.gateway.sse import Form, Head, streamed
from producers.gateway.wishes import Wishes, wished, wishes_of
from producers.openai_chat import AUTO
from producers.openai_faults import RequestFault, as_mapping, shown
from routing.decision import Decision, Preferences, output_for


class Translate(Protocol):
    """A request of one endpoint as a decision."""

    def __call__(
        self, body: dict[str, Any], *, catalog: Catalog, key: str, kind: str,
        preferences: Preferences,
    ) -> Decision:  # fmt: skip
        """Raises RequestFault where a field cannot be served."""
        ...


@dataclass(frozen=True)
class Endpoint:
    """What differs between the endpoints that answer one question."""

    kind: str
    prefix: str
    """Of the ids of answers."""
    translate: Translate
    form: Callable[[Decision, int, str], Form]
    """The answer's shape, by the decision, its second, and the model's name that was asked for."""


@dataclass(frozen=True)
class Question:
    """A request that can be answered."""

    decision: Decision
    model: str
    stream: bool
    with_usage: bool
    kept: bool


def gate_of(request: Request) -> Gate:
    """The gateway's state."""
    gate: Gate = request.app.state.gate
    return gate


async def answer(request: Request, endpoint: Endpoint) -> Response:
    """Serve one request of an endpoint.

    Raises:
        UptierError: whatever it ends with instead of an answer.
        Gone: the client left; its decision is cancelled.
    """
    gate = gate_of(request)
    caller = gate.keys.caller(request)
    with ExitStack() as held:
        held.enter_context(gate.admitted(caller))
        question = question_of(gate, caller, request, await read_json(request), endpoint)
        submitting = gate.submit(question.decision, kept=question.kept)
        ticket = await while_connected(request, submitting)
        held.callback(gate.hub.leave, ticket)
        created = int(time.time())
        form = endpoint.form(question.decision, created, question.model)
        if question.stream:
            head = Head(endpoint.prefix + ticket.id, created, question.model, question.with_usage)
            return await streamed(gate, request, ticket, form, head, held.pop_all().close)
        ended = await while_connected(request, gate.answer(ticket))
        return JSONResponse(form.whole(ended), headers=headers_of(ended, gate.client.run.id))


def question_of(
    gate: Gate, caller: Caller, request: Request, body: dict[str, Any], endpoint: Endpoint
) -> Question:
    """The question of a request.

    Raises:
        RequestFault: a field cannot be served; names it.
    """
    wishes = wishes_of(request.headers, body, caller)
    stream = _flag(body.get("stream"), "stream")
    options = as_mapping(body.get("stream_options") or {}, "stream_options")
    if options and not stream:
        raise RequestFault("stream_options", "is for streams: drop it, or set stream")
    decision = endpoint.translate(
        body, catalog=gate.catalog, key=wishes.key(caller), kind=wishes.own.kind or endpoint.kind,
        preferences=wishes.preferences,
    )  # fmt: skip
    decision = wished(_as_its_kind(decision, wishes, body, gate.catalog), wishes, caller)
    if stream and can_be_told(decision, gate.settings):
        told = decision.preferences.model_copy(update={"stream": True})
        decision = decision.model_copy(update={"preferences": told})
    return Question(
        decision=decision,
        model=body.get("model", AUTO),
        stream=stream,
        with_usage=_flag(options.get("include_usage"), "stream_options.include_usage"),
        kept=wishes.own.key is not None,
    )


def _as_its_kind(
    decision: Decision, wishes: Wishes, body: dict[str, Any], catalog: Catalog
) -> Decision:
    """A kind with labels or a schema of its own is asked for these, unless the request has its
    own form."""
    kind = catalog.kinds.get(wishes.own.kind or "")
    plain = body.get("response_format") in (None, {"type": "text"}) and not body.get("tools")
    if kind is None or not plain or kind.output in (None, OutputType.TEXT):
        return decision
    if kind.output is OutputType.CHOICE and not kind.labels:
        return decision
    return decision.model_copy(update={"output": output_for(catalog, decision.kind)})


def _flag(value: object, param: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise RequestFault(param, f"must be true or false (got {shown(value)})",
                           code="invalid_type")  # fmt: skip
    return bool(value)
