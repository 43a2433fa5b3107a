"""The lines of a batch's file: read one by one, each a decision or the reason why it is none."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from config.catalog import Catalog
from config.errors import InputError
from ledger.batches import Line
from producers.openai_chat import decision_of, starting_on
from producers.openai_faults import RequestFault, as_mapping, as_text, error_object, one_of
from producers.openai_text import decision_of_prompt
from routing.decision import MAX_KEY_CHARS, Decision, Preferences
from routing.raw import decision_from
from routing.wishes import raised_to

log = logging.getLogger(__name__)

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MOST_BYTES = 4 * 1024 * 1024
"""Of one line; longer ones are passed over."""
MALFORMED = "invalid_line"


@dataclass(frozen=True)
class BatchFile:
    """A batch's file as its first reading found it; ``lines`` counts those that are not blank."""

    path: Path
    sha256: str
    lines: int


@dataclass(frozen=True)
class Wanted:
    """What the submitter wants of all lines. ``model`` stands in for what the lines name."""

    model: str | None = None
    preferences: Preferences = field(default_factory=Preferences)


@dataclass(frozen=True)
class ReadLine:
    """A line, and the decision that it asks; without one ``line.error`` says why."""

    line: Line
    decision: Decision | None = None


def examine(path: Path) -> BatchFile:
    """Read a file once, to know it again and to count its lines.

    Raises:
        InputError: it cannot be read, or has no line.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"batch file {str(path)!r} is a pipe or the like, and it is read twice: "
                         "save it as a file first")  # fmt: skip
    digest, lines = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            for _, raw in numbered(file):
                digest.update(raw)
                lines += 1
    except OSError as error:
        raise InputError(
            f"batch file {str(path)!r}: {error.strerror or error}; name a file of JSON lines"
        ) from None
    if not lines:
        raise InputError(f"batch file {str(path)!r} has no line: put one JSON object on each")
    return BatchFile(path, digest.hexdigest(), lines)


def numbered(file: Any) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1; no more than one is held.

    Of a line that is too long only the beginning comes, longer than ``MOST_BYTES``.
    """
    number = 0
    while raw := file.readline(MOST_BYTES + 1):
        number += 1
        rest = raw
        while len(rest) > MOST_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MOST_BYTES + 1)
        if raw.strip():
            yield number, raw


def read_line(number: int, raw: bytes, catalog: Catalog, wanted: Wanted) -> ReadLine:
    """A line as a decision whose key is its ``custom_id``."""
    line = Line(number)
    try:
        given = _parsed(raw)
        line = replace(line, custom_id=_custom_id(given, number))
        if "url" not in given and "body" not in given:
            return ReadLine(line, _own(given, line, catalog, wanted))
        return _openai(given, line, catalog, wanted)
    except InputError as fault:
        return ReadLine(refused(line, fault))
    except (ValueError, ArithmeticError, RecursionError) as error:
        # Nobody foresaw it; all the same one line must not end the reading of the others.
        log.warning("line %d cannot be read", number, exc_info=error)
        return ReadLine(refused(line, InputError(f"cannot be read ({type(error).__name__})")))


def refused(line: Line, fault: InputError) -> Line:
    """The line with what is wrong with it, named by its number."""
    param = fault.param if isinstance(fault, RequestFault) else None
    code = fault.code if isinstance(fault, RequestFault) else MALFORMED
    return replace(
        line, decision_id=None,
        error=error_object(f"line {line.number}: {fault}", param=param, code=code),
    )  # fmt: skip


def _parsed(raw: bytes) -> Mapping[str, Any]:
    if len(raw) > MOST_BYTES:
        raise InputError(f"longer than {MOST_BYTES:,} bytes: shorten it")
    try:
        given = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError("is not UTF-8: save the file as such") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"is no JSON ({error}): correct it") from None
    return as_mapping(given, "the line")


def _custom_id(given: Mapping[str, Any], number: int) -> str:
    name = "custom_id"
    if given.get(name) is None and "body" not in given:
        # Uptier's own lines call it a key, and may do without.
        name = "key"
        if given.get(name) is None:
            return f"line-{number}"
    found = as_text(given.get(name), name)
    if not 0 < len(found) <= MAX_KEY_CHARS:
        raise RequestFault(name, f"must have 1 to {MAX_KEY_CHARS} characters (got {len(found)})")
    return found


def _own(given: Mapping[str, Any], line: Line, catalog: Catalog, wanted: Wanted) -> Decision:
    fields = {name: value for name, value in given.items() if name != "custom_id"}
    found = decision_from(fields | {"key": line.custom_id}, catalog)
    preferences = found.preferences
    if wanted.model is not None:
        preferences = starting_on(wanted.model, catalog, preferences)
    found = found.model_copy(update={"preferences": preferences})
    return raised_to(found, wanted.preferences.privacy)


def _openai(given: Mapping[str, Any], line: Line, catalog: Catalog, wanted: Wanted) -> ReadLine:
    unknown = sorted(given.keys() - {"custom_id", "method", "url", "body"})
    if unknown:
        raise RequestFault(unknown[0], "is no field of a batch's line: drop it")
    one_of(given.get("method", "POST"), "method", ("POST",))
    url = one_of(given.get("url"), "url", (CHAT, TEXT))
    body = dict(as_mapping(given.get("body"), "body"))
    if body.get("stream"):
        raise RequestFault("body.stream", "a batch has no streams: drop it")
    if wanted.model is not None:
        body["model"] = wanted.model
    make = decision_of if url == CHAT else decision_of_prompt
    try:
        decision = make(body, catalog=catalog, key=line.custom_id, preferences=wanted.preferences)
    except RequestFault as fault:
        raise fault.inside("body") from None
    return ReadLine(replace(line, url=url, model=str(body["model"])), decision)
