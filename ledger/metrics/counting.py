"""What is counted of each change, in the words of the ledger; the metrics are in catalog.py.

What every decision passes takes many at once and looks nothing up twice: it stands in the way of
all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection

from ledger.metrics import catalog
from ledger.metrics.catalog import NO_LANE
from ledger.metrics.tally import SUM, bound_of, count, counts_of
from routing.decision import Status

WITH_ANSWER = ("answered", "late")
"""Outcomes of attempts whose times mean something."""

_SUBMITTED = catalog.SUBMITTED.name
_SETTLED = catalog.SETTLED.name
_DECISION_SECONDS = catalog.DECISION_SECONDS.name
_WAITING_SECONDS = catalog.WAITING_SECONDS.name
_INFERENCE_SECONDS = catalog.INFERENCE_SECONDS.name
_ATTEMPTS = catalog.ATTEMPTS.name
_CHECKS = catalog.CHECKS.name
_CONSUMED = (
    (catalog.INPUT_TOKENS.name, "tokens_in"),
    (catalog.CACHED_TOKENS.name, "tokens_cached"),
    (catalog.OUTPUT_TOKENS.name, "tokens_out"),
    (catalog.COST.name, "cost_micros"),
)


def submitted(connection: Connection, decisions: Iterable[tuple[str, str]]) -> None:
    """Decisions were written, each with its kind and its first lane."""
    counts = counts_of(connection)
    if counts is not None:
        for kind, lane in decisions:
            counts[(_SUBMITTED, kind, lane)] += 1


def settled(
    connection: Connection, ended: Iterable[tuple[Any, Status, str | None]], now: int
) -> None:
    """Decisions ended: rows with their kind and when they were created, statuses, and the lanes
    whose answers these are."""
    counts = counts_of(connection)
    if counts is not None:
        for row, status, answered_by in ended:
            lane, micros = answered_by or NO_LANE, max(0, now - row.created_at)
            counts[(_SETTLED, row.kind, lane, status.value)] += 1
            counts[(_DECISION_SECONDS, lane, bound_of(micros))] += 1
            counts[(_DECISION_SECONDS, lane, SUM)] += micros


def attempted(connection: Connection, attempts: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Calls of models ended, each on a lane; with columns of its attempt."""
    counts = counts_of(connection)
    if counts is None:
        return
    for lane, values in attempts:
        counts[(_ATTEMPTS, lane, values["outcome"])] += 1
        if values["outcome"] in WITH_ANSWER:
            waited, took = values["waiting_us"], values["inference_us"]
            counts[(_WAITING_SECONDS, lane, bound_of(waited))] += 1
            counts[(_WAITING_SECONDS, lane, SUM)] += waited
            counts[(_INFERENCE_SECONDS, lane, bound_of(took))] += 1
            counts[(_INFERENCE_SECONDS, lane, SUM)] += took
        for name, column in _CONSUMED:
            if values[column]:
                counts[(name, lane)] += values[column]


def checked(connection: Connection, verdicts: Iterable[tuple[Any, bool]]) -> None:
    """The quality check came to conclusions: rows with kind and lane, and whether they passed."""
    counts = counts_of(connection)
    if counts is not None:
        for row, passed in verdicts:
            counts[(_CHECKS, row.kind, row.lane, "passed" if passed else "failed")] += 1


def ended(connection: Connection, lane: str, outcome: str) -> None:
    """A call of a model ended, of which no more is known."""
    count(connection, catalog.ATTEMPTS, lane, outcome)


def unknown(connection: Connection, lane: str, micros: int) -> None:
    """Nobody knows whether a call was billed, at most with so much."""
    count(connection, catalog.UNKNOWN_CHARGES, lane)
    count(connection, catalog.UNKNOWN_COST, lane, amount=micros)


def became_known(connection: Connection, lane: str, micros: int, values: Mapping[str, Any]) -> None:
    """An unknown charge of at most so much turned out; ``values`` are columns of its attempt."""
    count(connection, catalog.UNKNOWN_CHARGES, lane, amount=-1)
    count(connection, catalog.UNKNOWN_COST, lane, amount=-micros)
    counts = counts_of(connection)
    if counts is not None:
        for name, column in _CONSUMED:
            counts[(name, lane)] += values[column]


def escalated(connection: Connection, lane: str, to_lane: str) -> None:
    """A decision went on to a dearer lane."""
    count(connection, catalog.ESCALATIONS, lane, to_lane)


def served(connection: Connection, kind: str, layer: str) -> None:
    """The cache answered a decision."""
    count(connection, catalog.CACHE_HITS, kind, layer)


def lease_expired(connection: Connection, lane: str) -> None:
    """A decision was held without an outcome until its lease ended."""
    count(connection, catalog.LEASE_EXPIRIES, lane)


def worker_started(connection: Connection, lane: str, *, replaces: bool) -> None:
    """A worker announced itself; whether in the place of one that died."""
    count(connection, catalog.WORKER_STARTS, lane)
    if replaces:
        count(connection, catalog.WORKER_DEATHS, lane)
