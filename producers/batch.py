"""Batches: a file's lines asked in chunks, and their results in OpenAI's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import InputError
from ledger.batches import Line, Outcome, last_line, taken_ids, write_lines
from ledger.clock import SECOND
from ledger.patience import patiently
from producers.batch_lines import (
    CHAT,
    MOST_BYTES,
    TEXT,
    BatchFile,
    ReadLine,
    Wanted,
    numbered,
    read_line,
    refused,
)
from producers.openai_chat import completion_of, extras, failure_of
from producers.openai_faults import RequestFault
from producers.openai_text import text_body
from routing.decision import Decision, Settled

CHUNK = 100
"""Lines that are planned and written together; fewer where they are long."""

ERROR = ("code", "message", "param")

Ask = Callable[[Sequence[Decision]], list[str]]
"""Submits decisions and gives their ids in the same order; see ``Client.submit``."""


def submit_lines(
    engine: Engine,
    run_id: str,
    file: BatchFile,
    catalog: Catalog,
    wanted: Wanted,
    ask: Ask,
    on_read: Callable[[Sequence[Line]], None] = lambda _: None,
) -> None:
    """Ask the lines that the batch does not have yet, a chunk at a time.

    A chunk's decisions are written before its lines are. Whoever is interrupted in between finds
    the decisions by their keys when he goes on.
    """
    done = patiently(last_line, engine, run_id)
    with file.path.open("rb") as opened:
        fresh = ((number, raw) for number, raw in numbered(opened) if number > done)
        for chunk in _chunks(fresh):
            read = [read_line(number, raw, catalog, wanted) for number, raw in chunk]
            lines = _ask(_without_doubles(engine, run_id, read), ask)
            patiently(write_lines, engine, run_id, lines)
            on_read(lines)


def result_of(outcome: Outcome) -> dict[str, Any] | None:
    """A line's result as OpenAI's batch output has it; ``None`` while it is open.

    ``uptier`` tells how the answer came about.
    """
    line, settled = outcome.line, outcome.settled
    if line.error is not None:
        error = {name: line.error[name] for name in ERROR}
        return {"id": f"batch_req_line_{line.number}", "custom_id": line.custom_id or None,
                "response": None, "error": error}  # fmt: skip
    if settled is None:
        return None
    status, fault = failure_of(settled) or (200, None)
    body = _body(outcome, settled) if fault is None else {"error": fault}
    return {
        "id": f"batch_req_{settled.id}",
        "custom_id": line.custom_id,
        "response": {"status_code": status, "request_id": settled.id, "body": body},
        "error": fault and {name: fault[name] for name in ERROR},
        "uptier": extras(settled, outcome.usage),
    }


def _body(outcome: Outcome, settled: Settled) -> dict[str, Any]:
    url, usage = outcome.line.url, outcome.usage
    created, model = outcome.settled_at // SECOND, usage.model or outcome.line.model
    if url == CHAT:
        body = completion_of(outcome.template, settled, usage, created=created, model=model)
    elif url == TEXT:
        body = text_body(settled, usage, created=created, model=model)
    else:
        return {"object": "uptier.decision", "created": created, "model": model,
                "answer": settled.answer}  # fmt: skip
    del body["uptier"]  # it stands beside the response, where every line has it
    return body


def _ask(read: Sequence[ReadLine], ask: Ask) -> list[Line]:
    """The lines with the ids of their decisions, or with what is wrong with them."""
    asked = [one.decision for one in read if one.decision is not None]
    if not asked:
        return [one.line for one in read]
    try:
        ids = iter(ask(asked))
    except InputError:
        return [_ask_one(one, ask) for one in read]  # one cannot be planned; which, they tell
    return [
        one.line if one.decision is None else replace(one.line, decision_id=next(ids))
        for one in read
    ]


def _ask_one(one: ReadLine, ask: Ask) -> Line:
    if one.decision is None:
        return one.line
    try:
        [decision_id] = ask([one.decision])
    except InputError as fault:
        return refused(one.line, fault)
    return replace(one.line, decision_id=decision_id)


def _without_doubles(engine: Engine, run_id: str, read: Sequence[ReadLine]) -> list[ReadLine]:
    """The lines, those refused whose ``custom_id`` another one has."""
    names = [one.line.custom_id for one in read if one.decision is not None]
    taken = patiently(taken_ids, engine, run_id, names)
    found = []
    for one in read:
        if one.decision is not None:
            first = taken.setdefault(one.line.custom_id, one.line.number)
            if first != one.line.number:
                why = f"{one.line.custom_id!r} is line {first}'s already: name each but once"
                one = ReadLine(refused(one.line, RequestFault("custom_id", why)))
        found.append(one)
    return found


def _chunks(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    chunk: list[tuple[int, bytes]] = []
    held = 0
    for number, raw in lines:
        if len(chunk) == CHUNK or (chunk and held + len(raw) > MOST_BYTES):
            yield chunk
            chunk, held = [], 0
        chunk.append((number, raw))
        held += len(raw)
    if chunk:
        yield chunk
