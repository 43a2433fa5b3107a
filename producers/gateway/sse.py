"""Answers as server-sent events: chunks in OpenAI's shape, comments while nothing comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from producers.gateway.connection import until_gone
from producers.gateway.errors import Fault, fault_of
from producers.gateway.gate import Gate, headers_of
from producers.gateway.pieces import in_pieces, left_of, pieces
from producers.hub import Ended, Ticket

HOLD_S = 2
"""How long the headers wait for the first text, so that they can tell how it went."""
KEEP_ALIVE_S = 10
"""How often a comment is sent while nothing else comes."""
WAITING = b": waiting\n\n"
DONE = b"data: [DONE]\n\n"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

Chunk = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """The shape of one endpoint's chunks.

    ``begins`` gives the first choice, ``says`` one with a piece of text. ``whole`` is the answer
    as it would be without a stream, ``rest`` the choices that it takes to tell what of it is no
    text, ``ends`` the last one.
    """

    object: str
    whole: Callable[[Ended], dict[str, Any]]
    begins: Callable[[], Chunk | None]
    says: Callable[[str], Chunk]
    text: Callable[[Mapping[str, Any]], str]
    rest: Callable[[Mapping[str, Any]], list[Chunk]]
    ends: Callable[[str], Chunk]


@dataclass(frozen=True)
class Head:
    """What all chunks of a stream have in common."""

    id: str
    created: int
    model: str
    with_usage: bool


class Stream(StreamingResponse):
    """A stream that says when it is over, also where it never began."""

    def __init__(
        self, events: AsyncIterator[bytes], headers: Mapping[str, str], leave: Callable[[], None]
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def streamed(
    gate: Gate, request: Request, ticket: Ticket, form: Form, head: Head, leave: Callable[[], None]
) -> Stream:
    """The answer to a ticket as a stream. ``leave`` is called at its end, whatever that is.

    Raises:
        Fault: it ended without an answer before the headers were sent.
        Gone: the client left before that.
    """
    source = pieces(gate, ticket)
    first = asyncio.ensure_future(_next(source))
    gone = asyncio.ensure_future(until_gone(request))

    def end() -> None:
        first.cancel()
        gone.cancel()
        leave()

    try:
        await asyncio.wait((first, gone), timeout=HOLD_S, return_when=asyncio.FIRST_COMPLETED)
        begun = first.result() if first.done() else None
        headers = _known(gate, ticket, begun)
        if isinstance(begun, Ended):
            head = replace(head, model=form.whole(begun)["model"])
    except BaseException:
        end()
        raise
    return Stream(_events(source, first, gone, form, head), headers, end)


async def _next(source: AsyncIterator[str | Ended]) -> str | Ended:
    return await anext(source)


def _known(gate: Gate, ticket: Ticket, first: str | Ended | None) -> dict[str, str]:
    if isinstance(first, Ended):
        return HEADERS | headers_of(first, gate.client.run.id)
    return HEADERS | {"x-uptier-decision": ticket.id, "x-uptier-run": gate.client.run.id}


async def _events(
    source: AsyncIterator[str | Ended],
    first: asyncio.Future[str | Ended],
    gone: asyncio.Future[None],
    form: Form,
    head: Head,
) -> AsyncIterator[bytes]:
    """The stream. It ends early when the client has gone."""
    coming, said = first, ""
    try:
        begin = form.begins()
        if begin is not None:
            yield _event(_chunk(form, head, [begin]))
        while True:
            await asyncio.wait((coming, gone), timeout=KEEP_ALIVE_S,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            if gone.done():
                return
            if not coming.done():
                yield WAITING
                continue
            piece = coming.result()
            if isinstance(piece, Ended):
                break
            piece = piece if said else piece.lstrip()
            said += piece
            if piece:
                yield _event(_chunk(form, head, [form.says(piece)]))
            coming = asyncio.ensure_future(_next(source))
        for chunk in _ending(piece, said, form, head):
            yield _event(chunk)
        yield DONE
    except Exception as error:
        yield _event(fault_of(error).body)
    finally:
        coming.cancel()


def _ending(ended: Ended, said: str, form: Form, head: Head) -> Iterator[Chunk]:
    """What is left to be told once a decision has ended."""
    whole = form.whole(ended)
    left = left_of(form.text(whole), said)
    if left is None:
        raise Fault(502, "the model began anew, and what was told of its text is void: ask again",
                    code="text_void", kind="server_error")  # fmt: skip
    for piece in in_pieces(left):
        yield _chunk(form, head, [form.says(piece)])
    for choice in form.rest(whole):
        yield _chunk(form, head, [choice])
    last = _chunk(form, head, [form.ends(whole["choices"][0]["finish_reason"])])
    yield last | {"model": whole["model"], "uptier": whole["uptier"]}
    if head.with_usage:
        yield _chunk(form, head, []) | {"model": whole["model"], "usage": whole["usage"]}


def _chunk(form: Form, head: Head, choices: list[Chunk]) -> Chunk:
    found = {"id": head.id, "object": form.object, "created": head.created, "model": head.model,
             "choices": choices}  # fmt: skip
    return found | {"usage": None} if head.with_usage else found


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
