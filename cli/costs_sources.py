"""What ``uptier costs`` sums up: records of the ledger, or of a usage log."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Engine

from cli.output import bar, err
from config.catalog import Catalog
from config.errors import InputError
from config.load import load_catalog
from config.prices import Price
from config.settings import Settings
from ledger.clock import SECOND, now
from ledger.database import migrate, open_ledger
from ledger.runs import find_run
from ledger.usage import Selection, Usage
from ledger.usage_records import Lanes, known_kinds, usage_records
from producers.costs_ladder import references_of
from producers.costs_log import format_of
from producers.costs_reading import LogReader
from producers.costs_sums import By, Totals, sum_up

UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
LONGEST = 100 * 366 * 86_400  # seconds
STDIN = Path("-")
STEP = 1000  # records between two looks of the bar


@dataclass(frozen=True)
class Asked:
    """What is to be summed up, as it was asked for on the command line."""

    run: str | None = None
    since: str = "all"
    kind: str | None = None

    @property
    def name(self) -> str:
        """The source in words."""
        return "the ledger" if self.run is None else f"run {self.run}"

    def selection(self) -> Selection:
        """The records that it means, as of now."""
        return Selection(self.run, since_of(self.since), self.kind)


@dataclass(frozen=True)
class Opened:
    """A ledger, the profile that prices are taken from, and what lanes are."""

    settings: Settings
    engine: Engine
    catalog: Catalog
    lanes: Lanes
    notes: list[str] = field(default_factory=list)

    def totals(self, asked: Asked, prices: Mapping[str, Price], *by: By) -> Totals:
        """The sums of what is asked for.

        Raises:
            InputError: no decision has ever been of that kind.
        """
        with usage_records(self.engine, asked.selection(), self.lanes) as records:
            totals = sum_up(watched(records), prices.values(), by)
        self.check_kind(asked.kind, totals.records)
        for profile in self.lanes.unreadable:
            self.notes.append(f"profile {profile!r} cannot be read: its lanes have no tier")
        return totals

    def check_kind(self, kind: str | None, found: int) -> None:
        """Refuse a kind of which nothing was ``found`` because it is nowhere.

        Raises:
            InputError: no decision has ever been of that kind.
        """
        if kind is None or found:
            return
        known = known_kinds(self.engine)
        if kind not in known and kind not in self.catalog.kinds:
            some = f"choose one of {', '.join(known)}" if known else "the ledger has none yet"
            raise InputError(f"--kind {kind!r} is in no decision: {some}")


@contextmanager
def opened(settings: Settings, run: str | None, profile: str | None) -> Iterator[Opened]:
    """The ledger; prices come from the profile that is named, else the run's, else the settings'.

    Raises:
        InputError: the run is not in the ledger.
    """
    whole = load_catalog(settings.profile)
    migrate(settings)
    engine = open_ledger(settings)
    try:
        lanes = Lanes({settings.profile: whole})
        if run is not None:
            found = find_run(engine, run)
            if found is None:
                raise InputError(f"--run {run!r} is not in the ledger: check the id")
            if profile is None:
                whole = lanes.catalog(found.profile) or whole
        yield Opened(settings, engine, whole, lanes)
    finally:
        engine.dispose()


def reference_of(catalog: Catalog, named: str | None) -> dict[str, Price]:
    """The reference model of a report with its price; none if the profile names none."""
    if named is None and catalog.reference_model is None:
        return {}
    return references_of(catalog, [] if named is None else [named])


@contextmanager
def opened_log(path: Path, form: str | None) -> Iterator[LogReader]:
    """A usage log; ``-`` is standard input.

    Raises:
        InputError: it cannot be read, or no line of it is a usage record.
    """
    chosen = format_of(None if path == STDIN else path, form)
    try:
        with _stream(path) as file:
            reader = LogReader(file, chosen)
            yield reader
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a usage log") from None
    if not reader.good:
        why = reader.bad[0] if reader.bad else "it is empty"
        raise InputError(
            f"{path} has no usage record as {chosen.value} ({why}): give a log that `uptier costs "
            "export` writes, or one with prompt_tokens, completion_tokens and cost_usd"
        )


@contextmanager
def _stream(path: Path) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        yield file


def logged(records: Iterable[Usage], asked: Asked) -> Iterator[Usage]:
    """The records of a log that are asked for."""
    chosen = asked.selection()
    for one in records:
        if chosen.run is not None and one.run != chosen.run:
            continue
        if chosen.kind is not None and one.kind != chosen.kind:
            continue
        if chosen.since is not None and (one.time is None or one.time < chosen.since):
            continue
        yield one


def malformed(reader: LogReader) -> int:
    """Name the malformed lines of a log that was read; the exit status."""
    for line in reader.bad:
        err.print(f"{line}; it is left out", markup=False)
    if reader.malformed > len(reader.bad):
        err.print(f"and {reader.malformed - len(reader.bad)} more lines are left out")
    return 1 if reader.malformed else 0


def watched(records: Iterable[Usage]) -> Iterator[Usage]:
    """The same records; a person who waits sees how many were read."""
    if not err.is_terminal:
        yield from records
        return
    with bar() as progress:
        task = progress.add_task("reading", total=None, detail="records")
        for number, one in enumerate(records, start=1):
            if number % STEP == 0:
                progress.advance(task, STEP)
            yield one


def since_of(text: str) -> int | None:
    """The time that ``1h``, ``24h`` or ``7d`` ago was; ``None`` for ``all``.

    Raises:
        InputError: it is neither.
    """
    if text == "all":
        return None
    found = re.fullmatch(r"([0-9]{1,9})([mhdw])", text)
    seconds = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST:
        raise InputError(f"--since {text!r} is no time: give 1h, 24h, 7d or the like, or all")
    return now() - seconds * SECOND
