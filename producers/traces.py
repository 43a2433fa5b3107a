"""Reads traces: recorded attempts of several models at the same questions, with the right ones."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.errors import InputError
from config.load import one_line
from routing.attempts import Attempts, Question, Tried, tabulate

Split = Literal["calibration", "test"]


class _Attempt(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    tier: int
    model: str = Field(min_length=1)
    answer: str | None = None
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    cost_usd: float = Field(ge=0)
    latency_ms: Annotated[float, Field(ge=0)] | None = None
    correct: bool


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    id: str = Field(min_length=1)
    task_type: str = Field(min_length=1)
    split: Split
    prompt: str | None = None
    attempts: list[_Attempt] = Field(min_length=1)


@dataclass(frozen=True)
class Trace:
    """A trace: its attempts, and which rows (n) are for calibration; the others are for tests."""

    name: str
    attempts: Attempts
    calibration: NDArray[np.bool_]


def read_trace(path: Path) -> Trace:
    """The trace in a file of gzipped JSON lines, cheapest tier first in every row.

    Raises:
        InputError: the file cannot be read, is not gzip, a line is no such row, or the rows do
            not have the same models.
    """
    rows: list[_Row] = []
    models: tuple[str, ...] = ()
    ids: set[str] = set()
    for number, line in enumerate(_lines(path), start=1):
        place = f"{path}, line {number}"
        row = _row(line, place)
        own = tuple(attempt.model for attempt in row.attempts)
        models = models or own
        _refuse_inconsistent(row, own, models, place)
        if row.id in ids:
            raise InputError(f"{place}: id {row.id!r} is there twice: give each row its own")
        ids.add(row.id)
        rows.append(row)
    if not rows:
        raise InputError(f"trace {path} has no rows: give one row a line")
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    split = np.array([row.split == "calibration" for row in rows])
    return Trace(name, tabulate(models, [_question(row) for row in rows]), split)


def _lines(path: Path) -> Iterator[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    except FileNotFoundError:
        raise InputError(f"trace {path} is not there: check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"trace {path} is not UTF-8: write it anew as UTF-8") from None
    except (EOFError, zlib.error):
        raise InputError(f"trace {path} is cut off or damaged: fetch it again") from None
    except gzip.BadGzipFile:
        raise InputError(f"trace {path} is not gzip: compress it with `gzip`") from None
    except OSError as error:
        raise InputError(f"trace {path} cannot be read: {error.strerror}") from None


def _row(line: str, place: str) -> _Row:
    try:
        return _Row.model_validate_json(line)
    except ValidationError as error:
        raise InputError(one_line(error, place)) from None


def _refuse_inconsistent(
    row: _Row, own: tuple[str, ...], models: tuple[str, ...], place: str
) -> None:
    if own != models:
        raise InputError(
            f"{place}: its models are {', '.join(own)}, those of line 1 {', '.join(models)}: "
            "every row needs one attempt of each, in the same order"
        )
    if len(set(own)) != len(own):
        raise InputError(f"{place}: a model is there twice: give one attempt of each")
    tiers = [attempt.tier for attempt in row.attempts]
    if tiers != sorted(tiers):
        raise InputError(f"{place}: tiers {tiers} do not rise: put the cheapest first")


def _question(row: _Row) -> Question:
    tried = (Tried(a.answer, a.confidence, a.cost_usd, a.correct) for a in row.attempts)
    return Question(row.task_type, tuple(tried))
