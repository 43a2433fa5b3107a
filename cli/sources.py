"""The labelled rows that ``uptier evaluate`` learns from and scores on: traces, or a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cli.output import percent, say
from config.errors import InputError
from config.settings import Settings
from ledger.database import migrate, open_ledger
from ledger.runs import find_run
from ledger.tried import tried
from producers.traces import read_trace
from routing.attempts import Attempts
from routing.offpolicy import FEWEST, Seen, logged

LEAST = 20
"""Rows on each side of a split, below which nothing can be learnt or scored."""


@dataclass(frozen=True)
class Source:
    """Labelled rows under a name; the mask says which are for calibration.

    ``left_out`` are the kinds of a run whose rows are not among them.
    """

    name: str
    rows: Attempts
    calibration: NDArray[np.bool_]
    unit: str = "usd"
    left_out: tuple[str, ...] = ()


def of_trace(path: Path, seed: int) -> Source:
    """A trace's rows by its own split, or by random halves where it has none.

    Raises:
        InputError: it cannot be read, or has too few rows.
    """
    trace = read_trace(path)
    marked = trace.calibration
    if marked.all() or not marked.any():  # nothing to score, or nothing to learn from
        marked = _halves(len(marked), seed)
    return _usable(Source(trace.name, trace.attempts, marked))


def of_run(settings: Settings, run: str, seed: int, *, adopt: bool = False) -> Source:
    """A run's rows in which every lane was tried, half of them for calibration.

    What is to be adopted has no rows of kinds that keep to the certificates of their lanes.

    Raises:
        InputError: the run is not there, or has too few rows.
    """
    migrate(settings)
    engine = open_ledger(settings)
    try:
        if find_run(engine, run) is None:
            raise InputError(f"--run {run!r} is not in the ledger: check the id")
        seen, paid = tried(engine, run)
    finally:
        engine.dispose()
    left_out = _certified(settings, run, seen) if adopt else ()
    seen = [one for one in seen if one.kind not in left_out]
    found = logged(seen, _order(settings))
    if found.attempts is None:
        counts = ", ".join(f"{lane} {n}" for lane, n in found.lanes.items()) or "none"
        raise InputError(
            f"--run {run!r} has {found.complete} labelled decisions that all lanes were tried on "
            f"(attempts by lane: {counts}); it takes {FEWEST}: run more, or audit a larger share"
        )
    if found.unseen:
        say(
            f"{found.unseen} decisions were not tried on every lane and are left out; the rows "
            f"stand for {percent(found.covered)} of the run, the harder ones unless audited"
        )
    rows = found.attempts
    unit = "usd" if paid else "seconds"
    return _usable(Source(run, rows, _halves(len(rows), seed), unit, left_out))


def _certified(settings: Settings, run: str, seen: Sequence[Seen]) -> tuple[str, ...]:
    """The kinds of a run that keep to the certificates of their lanes."""
    kinds = sorted({one.kind for one in seen})
    found = tuple(kind for kind in kinds if settings.catalog.kind(kind).certified)
    if found and len(found) == len(kinds):
        raise InputError(
            f"--run {run!r} has only kinds that keep to the certificates of their lanes "
            f"({', '.join(found)}): there is nothing to adopt"
        )
    return found


def _order(settings: Settings) -> list[str]:
    catalog = settings.catalog
    return sorted(catalog.lanes, key=lambda lane: catalog.tiers[catalog.lanes[lane].tier].rank)


def _halves(n: int, seed: int) -> NDArray[np.bool_]:
    return np.asarray(np.random.default_rng(seed).permutation(n) < n // 2)


def _usable(source: Source) -> Source:
    least = min(source.calibration.sum(), (~source.calibration).sum())
    if least < LEAST:
        raise InputError(
            f"{source.name} has {least} rows on one side of its split; it takes {LEAST} on each: "
            "give more rows"
        )
    return source
