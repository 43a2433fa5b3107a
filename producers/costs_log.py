"""Usage logs: one usage record a line, as JSON Lines or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from config.errors import InputError
from config.files import written_whole
from ledger.usage import Usage
from producers.costs_report import MILLION, moment

FIELDS = (
    "time", "run", "decision", "attempt", "kind", "role", "lane", "tier", "model", "place",
    "planned_place", "outcome", "success", "prompt_tokens", "cached_tokens", "completion_tokens",
    "cost_usd", "unknown_charge_usd", "latency_ms", "waiting_ms", "quality_score", "passed",
    "fallback_used", "last_answer", "api_prompt_tokens", "api_completion_tokens",
)  # fmt: skip
TEXTS = frozenset({"run", "decision", "attempt", "kind", "lane", "tier", "model", "outcome"})
"""Fields whose words are not ours."""
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take a cell for a formula by; it gets a ' before it, which reading drops."""


class Format(StrEnum):
    """How records are written."""

    JSONL = "jsonl"
    CSV = "csv"


def format_of(path: Path | None, given: str | None) -> Format:
    """The format that is given, else that of the path's name, else JSON Lines.

    Raises:
        InputError: there is no such format, or the name has another ending.
    """
    if given is not None:
        if given not in list(Format):
            raise InputError(f"--format {given!r} is unknown: choose jsonl or csv")
        return Format(given)
    ending = ".jsonl" if path is None else path.suffix.lower()
    found = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".csv": Format.CSV}.get(ending)
    if found is None:
        raise InputError(f"{path} ends in neither .jsonl nor .csv: say which with --format")
    return found


def write_log(records: Iterable[Usage], file: TextIO, form: Format) -> int:
    """Write records one by one; how many there were."""
    count = 0
    if form is Format.JSONL:
        for count, one in enumerate(records, start=1):  # noqa: B007 - the last count is given
            file.write(json.dumps(as_object(one)) + "\n")
        return count
    table = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    table.writerow(FIELDS)
    for count, one in enumerate(records, start=1):  # noqa: B007
        cells = [_cell(name, value) for name, value in as_object(one).items()]
        # Left to itself the writer quotes no carriage return, which ends a row for the reader.
        (quoted if "\r" in "".join(map(str, cells)) else table).writerow(cells)
    return count


@contextmanager
def atomic(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of ``path`` once it is whole; if it is not, nothing is left.

    Raises:
        InputError: it cannot be written.
    """
    with (
        written_whole(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file


def as_object(one: Usage) -> dict[str, Any]:
    """A record with the log's names: money as exact dollars, times in ISO 8601, UTC."""
    return {
        "time": moment(one.time), "run": one.run, "decision": one.decision,
        "attempt": one.attempt, "kind": one.kind, "role": one.role.value, "lane": one.lane,
        "tier": one.tier, "model": one.model,
        "place": None if one.place is None else one.place.value,
        "planned_place": None if one.planned is None else one.planned.value,
        "outcome": one.outcome, "success": one.success, "prompt_tokens": one.tokens_in,
        "cached_tokens": one.tokens_cached, "completion_tokens": one.tokens_out,
        "cost_usd": exact(one.cost), "unknown_charge_usd": exact(one.unknown),
        "latency_ms": _ms(one.latency_us), "waiting_ms": _ms(one.waiting_us),
        "quality_score": one.score, "passed": one.passed, "fallback_used": one.fallback,
        "last_answer": one.last, "api_prompt_tokens": one.api_in,
        "api_completion_tokens": one.api_out,
    }  # fmt: skip


def exact(micros: Decimal) -> str:
    """Micro-dollars as dollars, to the last digit: six places, more where there are more."""
    dollars = micros / MILLION
    places = -min(-6, int(dollars.as_tuple().exponent))
    return f"{dollars:.{places}f}"


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if name in TEXTS and isinstance(value, str) and value.startswith(FORMULAS):
        return f"'{value}"
    return value


def _ms(micros: int | None) -> float | None:
    return None if micros is None else micros / 1000
