"""Recordings: files of what a run was answered, and askers that answer from one."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import InputError
from config.files import written_whole
from ledger.clock import Clock
from ledger.patience import patiently
from ledger.recordings import (
    Recorded,
    all_recorded,
    find_recorded,
    put_replayed,
    question_digest,
)
from ledger.runs import RunInfo
from producers.asking import Settling, gather
from routing.decision import Decision, Settled

FORMAT = "uptier recording 1"
FIELDS = tuple(Recorded.__dataclass_fields__)
_RECORDED = TypeAdapter(Recorded)


class Recording(Protocol):
    """Answers by key, and the configuration of the run they come from."""

    @property
    def source(self) -> str:
        """What it is, in words."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """What the recorded run was started with."""
        ...

    def find(self, keys: Sequence[str]) -> Mapping[str, Recorded]:
        """Those of ``keys`` that were recorded."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class RunRecording:
    """A run of this ledger, over an engine of its own."""

    def __init__(self, engine: Engine, run: RunInfo) -> None:
        self._engine = engine
        self._run = run
        self.source = f"run {run.id}"
        self.config: Mapping[str, Any] = run.config

    def find(self, keys: Sequence[str]) -> Mapping[str, Recorded]:
        """Those of ``keys`` that the run has settled."""
        return patiently(find_recorded, self._engine, self._run.id, keys)

    def close(self) -> None:
        """End its connections to the ledger."""
        self._engine.dispose()


class FileRecording:
    """A file that :func:`write_recording` wrote; held in memory, about 300 bytes a decision."""

    def __init__(self, path: Path) -> None:
        """Raises: InputError when the file is missing or no recording."""
        lines = _lines(path)
        header = _parsed(path, 1, next(lines, ""))
        if header.get("format") != FORMAT or not isinstance(header.get("config"), dict):
            raise InputError(f"{path} is no recording: write one with uptier simulate --record")
        self.source = f"recording {path.name}"
        self.config: Mapping[str, Any] = header["config"]
        self._found: dict[str, Recorded] = {}
        for number, line in enumerate(lines, start=2):
            one = _recorded(path, number, line)
            self._found[one.key] = one
        if len(self._found) != header.get("decisions"):
            raise InputError(
                f"{path} holds {len(self._found)} of {header.get('decisions')} decisions: it was "
                "cut off; record it again"
            )

    def find(self, keys: Sequence[str]) -> Mapping[str, Recorded]:
        """Those of ``keys`` that the file has."""
        return {key: self._found[key] for key in keys if key in self._found}

    def close(self) -> None:
        """Forget the answers."""
        self._found.clear()


class Replayer:
    """Answers from a recording, and writes the decisions into the run as ``replayed``.

    What was not recorded, or was another question under the same key, goes to ``live``; without
    it that is an error.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        engine: Engine,
        run: RunInfo,
        catalog: Catalog,
        clock: Clock,
        live: Settling | None = None,
    ) -> None:
        self._recording = recording
        self._engine = engine
        self._run = run
        self._catalog = catalog
        self._clock = clock
        self._live = live
        self._settled: dict[str, Settled] = {}
        self.hits = 0
        self.misses = 0

    def submit(self, decisions: Sequence[Decision]) -> list[str]:
        """Settle what was recorded, ask the rest; ids in the order of ``decisions``.

        Raises:
            InputError: a decision was not recorded, and nobody may be asked instead.
        """
        found = self._recording.find([decision.key for decision in decisions])
        hits = [
            (decision, old)
            for decision in decisions
            if (old := found.get(decision.key)) and old.question == question_digest(decision)
        ]
        known = {decision.key for decision, _ in hits}
        missed = [decision for decision in decisions if decision.key not in known]
        if missed and self._live is None:
            raise InputError(self._miss(missed[0], missed[0].key in found))
        settled = patiently(
            put_replayed, self._engine, self._run.id, hits, source=self._recording.source,
            catalog=self._catalog, now=self._clock(),
        )  # fmt: skip
        self._settled.update((one.id, one) for one in settled)
        ids = {one.key: one.id for one in settled}
        if missed and self._live is not None:
            asked = self._live.submit(missed)
            ids |= dict(zip((decision.key for decision in missed), asked, strict=True))
        self.hits += len(settled)
        self.misses += len(missed)
        return [ids[decision.key] for decision in decisions]

    def wait_some(self, ids: Sequence[str]) -> list[Settled]:
        """Those of ``ids`` that are settled, as soon as there is one."""
        found = [self._settled.pop(i) for i in ids if i in self._settled]
        if found or self._live is None:
            return found
        return self._live.wait_some(ids)

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        """Settlements in the order of ``decisions``."""
        return gather(self, decisions)

    def _miss(self, decision: Decision, other: bool) -> str:
        what = "another question under" if other else "no answer to"
        return (
            f"{self._recording.source} has {what} {decision.key} ({decision.kind}): replay it with "
            "the agents, days and seed it was recorded with, or allow --or-live"
        )


def write_recording(engine: Engine, run: RunInfo, config: Mapping[str, Any], path: Path) -> int:
    """Write what a run was answered to a gzipped file; returns the decisions in it.

    ``config`` is what fixes the run, so that whoever replays it starts it alike. The file holds
    no prompts. It appears under its name only when it is whole. Equal runs give equal bytes.
    """
    records = sorted(all_recorded(engine, run.id), key=lambda one: one.key)
    header = {"format": FORMAT, "config": dict(config), "decisions": len(records)}
    with (
        written_whole(path, "--record") as unfinished,
        unfinished.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file,
    ):
        for line in _written(header, records):
            file.write(line)
    return len(records)


def _written(header: Mapping[str, Any], records: Iterable[Recorded]) -> Iterator[bytes]:
    yield json.dumps(header, sort_keys=True).encode() + b"\n"
    for one in records:
        yield json.dumps(asdict(one), sort_keys=True).encode() + b"\n"


def _lines(path: Path) -> Iterator[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"recording {path} cannot be read ({reason}): check the file") from error


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}, line {number}, is no JSON object: record it again")
    return found


def _recorded(path: Path, number: int, line: str) -> Recorded:
    try:
        return _RECORDED.validate_json(line, strict=True)
    except ValidationError:
        _parsed(path, number, line)
        raise InputError(
            f"{path}, line {number}, is no recorded decision (it needs {', '.join(FIELDS)}): "
            "record it again"
        ) from None
