"""Reads usage logs line by line: what is no record is named by its line, and the rest goes on."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, BinaryIO, Self, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ledger.usage import ANSWERED, Place, Role, Usage
from producers.costs_log import FORMULAS, TEXTS, Format
from producers.costs_report import MILLION
from producers.costs_sums import EPOCH

T = TypeVar("T")
LONGEST_LINE = 1 << 20  # bytes
MOST_LINES = 200
"""Of one row of CSV."""
SHOWN = 20
"""Malformed lines that are named one by one."""

Count = Annotated[int, Field(ge=0, le=10**12)]
Money = Annotated[Decimal, Field(ge=0, le=10**9, decimal_places=15)]
Ms = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=500)]


class Line(BaseModel):
    """One line of a log. Of foreign logs only tokens and cost are asked; the rest is inferred."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    time: datetime | None = Field(None, validation_alias=AliasChoices("time", "timestamp"))
    run: Text = ""
    decision: Text = ""
    attempt: Text = ""
    kind: Text = Field("", validation_alias=AliasChoices("kind", "action", "topic"))
    role: Role = Role.QUESTION
    lane: Text = ""
    tier: Text = ""
    model: Text = ""
    place: Place | None = None
    planned_place: Place | None = None
    outcome: Text = ""
    success: bool | None = None
    prompt_tokens: Count
    cached_tokens: Count = 0
    completion_tokens: Count
    cost_usd: Money = Field(validation_alias=AliasChoices("cost_usd", "cost"))
    unknown_charge_usd: Money = Decimal(0)
    latency_ms: Ms | None = Field(None, validation_alias=AliasChoices("latency_ms", "latency"))
    waiting_ms: Ms | None = None
    quality_score: Annotated[float, Field(ge=0, le=1)] | None = None
    passed: bool | None = None
    fallback_used: bool = False
    last_answer: bool | None = None
    api_prompt_tokens: Count | None = None
    api_completion_tokens: Count | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if self.cached_tokens > self.prompt_tokens:
            raise ValueError("cached_tokens are part of prompt_tokens, and here there are more")
        if self.outcome and self.success not in (None, self.outcome == ANSWERED):
            raise ValueError(f"outcome {self.outcome!r} and success {self.success} contradict")
        return self

    def usage(self) -> Usage:
        """The record; what a foreign log does not say follows from what it says."""
        outcome = self.outcome or (ANSWERED if self.success in (None, True) else "failed")
        called = not self.outcome or bool(self.attempt) or self.place is not None
        place = (self.place or (Place.API if self.cost_usd else Place.LOCAL)) if called else None
        last = self.last_answer
        if last is None:
            last = called and outcome == ANSWERED and self.role is not Role.AUDIT
        counts = last and self.role is Role.QUESTION
        tokens_in, tokens_out = self.api_prompt_tokens, self.api_completion_tokens
        return Usage(
            time=_micros_of(self.time), run=self.run, decision=self.decision,
            attempt=self.attempt, kind=self.kind, role=self.role, lane=self.lane, tier=self.tier,
            model=self.model, place=place,
            planned=self.planned_place or (Place.LOCAL if self.fallback_used else place),
            outcome=outcome, tokens_in=self.prompt_tokens, tokens_cached=self.cached_tokens,
            tokens_out=self.completion_tokens, cost=self.cost_usd * MILLION,
            unknown=self.unknown_charge_usd * MILLION, latency_us=_us(self.latency_ms),
            waiting_us=_us(self.waiting_ms), score=self.quality_score, passed=self.passed,
            fallback=self.fallback_used, last=last,
            api_in=(self.prompt_tokens if counts else 0) if tokens_in is None else tokens_in,
            api_out=(self.completion_tokens if counts else 0) if tokens_out is None else tokens_out,
        )  # fmt: skip


@dataclass
class LogReader:
    """The records of an open log. ``bad`` has the first malformed lines with what is wrong."""

    file: BinaryIO
    form: Format
    good: int = 0
    malformed: int = 0
    bad: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Usage]:
        for number, read in self._objects():
            try:
                found = Line.model_validate(read()).usage()
            except ValidationError as error:
                self._refuse(number, _first(error))
            except (ValueError, RecursionError, csv.Error) as error:
                self._refuse(number, _words(error))
            else:
                self.good += 1
                yield found

    def _refuse(self, number: int, why: str) -> None:
        self.malformed += 1
        if len(self.bad) < SHOWN:
            self.bad.append(f"line {number}: {why}")

    def _objects(self) -> Iterator[tuple[int, Callable[[], Any]]]:
        """Each line's number, and what reads it."""
        lines = _Lines(self.file)
        if self.form is Format.JSONL:
            for line in self._each(lines, lines):
                if line.strip():
                    yield lines.first, partial(_object, line)
            return
        names: list[str] = []
        for cells in self._each(csv.reader(lines, strict=True), lines):
            if not names:
                names = [cell.strip() for cell in cells]
            elif cells and len(cells) != len(names):
                self._refuse(lines.first, f"has {len(cells)} cells, and the header {len(names)}")
                lines.reread()
            elif cells:
                yield lines.first, partial(_named, names, cells)

    def _each(self, rows: Iterator[T], lines: _Lines) -> Iterator[T]:
        """All rows that can be read; both iterators go on after a fault."""
        while True:
            lines.begin()
            try:
                row = next(rows)
            except StopIteration:
                return
            except (ValueError, csv.Error) as error:
                self._refuse(lines.first, _words(error))
                lines.reread()
            else:
                yield row


class _Lines:
    """Lines of a file as text, which goes on after a fault.

    A row may take several lines. Where a quote that nobody closed swallowed the lines after it,
    ``reread`` gives them once more.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 0
        self._row: list[str | ValueError] = []
        self._again: deque[str | ValueError] = deque()

    @property
    def first(self) -> int:
        """The number of the row's first line."""
        return self._number - max(0, len(self._row) - 1)

    def begin(self) -> None:
        """What comes next is a new row."""
        self._row.clear()

    def reread(self) -> None:
        """Take all lines of the row back but the first."""
        rest = self._row[1:]
        self._again.extendleft(reversed(rest))
        self._number -= len(rest)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        if not line:
            raise StopIteration
        self._number += 1
        self._row.append(line)
        if isinstance(line, ValueError):
            raise line
        if len(self._row) > MOST_LINES:
            raise ValueError("has a quote that is not closed")
        return line

    def _read(self) -> str | ValueError:
        line = self._file.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := self._file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            return ValueError(f"longer than {LONGEST_LINE:,} bytes")
        try:
            return line.decode("utf-8" if self._number else "utf-8-sig")
        except UnicodeDecodeError as error:
            return error


def _object(line: str) -> dict[str, Any]:
    found = json.loads(line, parse_float=Decimal, parse_constant=_no_number)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return {name: value for name, value in found.items() if value is not None}


def _named(names: list[str], cells: list[str]) -> dict[str, str]:
    found = {name: cell for name, cell in zip(names, cells, strict=True) if cell != ""}
    for name in TEXTS & found.keys():
        if found[name][0] == "'" and found[name][1:].startswith(FORMULAS):
            found[name] = found[name][1:]
    return found


def _no_number(name: str) -> Decimal:
    raise ValueError(f"{name} is no number")


def _first(error: ValidationError) -> str:
    """The first fault of a line, with its field and value."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    got = f" (got {str(value)[:80]!r})" if isinstance(value, str | int | float | Decimal) else ""
    return f"{where}: {message}{got}" if where else message


def _words(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    return str(error).split("\n")[0] or "cannot be read"


def _micros_of(time: datetime | None) -> int | None:
    if time is None:
        return None
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def _us(ms: float | None) -> int | None:
    return None if ms is None else round(ms * 1000)
