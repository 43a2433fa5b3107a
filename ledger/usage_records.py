"""Reads usage records from the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Select, case, exists, func, select

from config.catalog import Catalog
from config.errors import ConfigurationError
from config.load import load_catalog
from ledger.calls import INTENT, UNKNOWN
from ledger.database import reading
from ledger.roles import role
from ledger.run_sums import CHARS_PER_TOKEN
from ledger.tables import TABLES
from ledger.usage import ANSWERED, NONE, NOTHING, UNKNOWN_TIER, Place, Role, Selection, Usage
from routing.decision import Plan, State

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
PREFIXES = TABLES.tables["prefix"]
RUNS = TABLES.tables["run"]

PAGE = 1000  # rows that are fetched at once


class Lanes:
    """Tiers and places of lanes, by the profiles of their runs."""

    def __init__(self, known: Mapping[str, Catalog] | None = None) -> None:
        self._catalogs: dict[str, Catalog | None] = dict(known or {})
        self._planned = lru_cache(maxsize=1024)(_first_lane)
        self._facts = lru_cache(maxsize=1024)(self._facts_of)

    @property
    def unreadable(self) -> list[str]:
        """Profiles of runs that are not there any more; their lanes have no tier."""
        return sorted(name for name, catalog in self._catalogs.items() if catalog is None)

    def catalog(self, profile: str) -> Catalog | None:
        """A run's whole profile, absent lanes included; ``None`` if it cannot be read."""
        if profile not in self._catalogs:
            try:
                self._catalogs[profile] = load_catalog(profile)
            except ConfigurationError:
                self._catalogs[profile] = None
        return self._catalogs[profile]

    def tier(self, profile: str, lane: str | None) -> str:
        """The tier of a lane."""
        return self._facts(profile, lane).tier if lane else NONE

    def model(self, profile: str, lane: str | None) -> str:
        """The model of a lane, as the profile is now."""
        return self._facts(profile, lane).model if lane else NONE

    def place(self, profile: str, lane: str, charged: bool = False) -> Place:
        """Where calls of a lane are made; of an unknown lane only its charges tell."""
        return self._facts(profile, lane).place or (Place.API if charged else Place.LOCAL)

    def planned(self, plan: str) -> str | None:
        """The lane that a plan begins with."""
        return self._planned(plan)

    def _facts_of(self, profile: str, lane: str) -> _Lane:
        catalog = self.catalog(profile)
        if catalog is None or lane not in catalog.lanes:
            return _Lane(UNKNOWN_TIER, NONE, None)
        place = Place.API if catalog.is_paid(lane) else Place.LOCAL
        return _Lane(catalog.lanes[lane].tier, catalog.lanes[lane].model, place)


class _Lane(NamedTuple):
    """What is known of a lane; without a ``place`` nothing is."""

    tier: str
    model: str
    place: Place | None


def _first_lane(plan: str) -> str | None:
    try:
        return Plan.model_validate_json(plan).hops[0].lane
    except ValueError:  # of a version that planned otherwise
        return None


@contextmanager
def usage_records(engine: Engine, chosen: Selection, lanes: Lanes) -> Iterator[Iterator[Usage]]:
    """The records of a ledger as they are at one moment: calls first, then what had none.

    They are read as they are asked for, so that any number of them fits into memory.
    """
    postgres = engine.dialect.name == "postgresql"
    options: dict[str, Any] = {"uptier_reads": True}
    if postgres:
        options["isolation_level"] = "REPEATABLE READ"  # both queries see the same books
    with engine.connect().execution_options(**options) as connection:
        if postgres:
            # Whoever reads the log may pause; nothing is locked meanwhile.
            connection.exec_driver_sql("set local idle_in_transaction_session_timeout = 0")
        yield _records(connection, chosen, lanes)


def known_kinds(engine: Engine) -> list[str]:
    """The kinds of all decisions of a ledger."""
    with reading(engine) as connection:
        found = connection.execute(select(DECISIONS.c.kind).distinct().order_by(DECISIONS.c.kind))
        return list(found.scalars())


def _records(connection: Connection, chosen: Selection, lanes: Lanes) -> Iterator[Usage]:
    by_page = {"yield_per": PAGE}
    calls = calls_query(chosen, sort=_sorts(connection, chosen))
    for row in connection.execute(calls, execution_options=by_page):
        yield _call(row, lanes)
    for row in connection.execute(uncalled_query(chosen), execution_options=by_page):
        yield _uncalled(row, lanes)


def _sorts(connection: Connection, chosen: Selection) -> bool:
    """SQLite would hold all calls of a run in memory to sort them; it finds them as they were
    submitted anyway."""
    return chosen.run is None or connection.dialect.name == "postgresql"


def calls_query(chosen: Selection, *, sort: bool) -> Select[Any]:
    """All calls of a selection, with what their decisions say of them."""
    one, asked = ATTEMPTS.c, DECISIONS.c
    later = ATTEMPTS.alias("later")
    is_last = ~exists().where(
        later.c.decision_id == one.decision_id,
        later.c.outcome == ANSWERED,
        later.c.id > one.id,
    )
    query = (
        select(
            one.id, one.decision_id, asked.run_id, RUNS.c.profile, asked.kind,
            role().label("role"), one.lane, asked.plan, one.model, one.outcome, one.tokens_in,
            one.tokens_cached, one.tokens_out, one.cost_micros, one.estimated_micros,
            one.inference_us, one.waiting_us, one.score, one.passed, one.created_at,
            case(((one.outcome == ANSWERED) & is_last, 1), else_=0).label("last"),
        )
        .join(DECISIONS, asked.id == one.decision_id)
        .join(RUNS, RUNS.c.id == asked.run_id)
    )  # fmt: skip
    found = _chosen(query, chosen, one.created_at)
    return found.order_by(one.id) if sort else found


def uncalled_query(chosen: Selection) -> Select[Any]:
    """The decisions of a selection that no call answered, audits apart."""
    asked, one = DECISIONS.c, ATTEMPTS.c
    ended = func.coalesce(asked.settled_at, asked.created_at)
    answered = exists().where(one.decision_id == asked.id, one.outcome == ANSWERED)
    size = func.length(asked.prompt) + func.coalesce(func.length(PREFIXES.c.text), 0)
    query = (
        select(
            asked.id, asked.run_id, RUNS.c.profile, asked.kind, role().label("role"), asked.plan,
            asked.answer_lane, asked.state, asked.status, ended.label("ended"),
            size.label("chars"), func.coalesce(func.length(asked.answer), 0).label("said"),
        )
        .join(RUNS, RUNS.c.id == asked.run_id)
        .outerjoin(PREFIXES, PREFIXES.c.id == asked.prefix_id)
        .where(asked.propensity.is_(None), ~answered)
    )  # fmt: skip
    return _chosen(query, chosen, ended)


def _chosen(query: Select[Any], chosen: Selection, when: Any) -> Select[Any]:
    if chosen.run is not None:
        query = query.where(DECISIONS.c.run_id == chosen.run)
    if chosen.since is not None:
        query = query.where(when >= chosen.since)
    if chosen.kind is not None:
        query = query.where(DECISIONS.c.kind == chosen.kind)
    return query


def _call(row: Any, lanes: Lanes) -> Usage:
    first = lanes.planned(row.plan) or row.lane
    asked = Role(row.role)
    last = bool(row.last) and asked is not Role.AUDIT
    counts = last and asked is Role.QUESTION
    unknown = row.estimated_micros if row.outcome in (INTENT, UNKNOWN) else 0
    charged = row.cost_micros + row.estimated_micros > 0
    return Usage(
        time=row.created_at, run=row.run_id, decision=row.decision_id, attempt=row.id,
        kind=row.kind, role=asked, lane=row.lane, tier=lanes.tier(row.profile, row.lane),
        model=row.model, place=lanes.place(row.profile, row.lane, charged),
        planned=lanes.place(row.profile, first, charged and first == row.lane),
        outcome=row.outcome, tokens_in=row.tokens_in, tokens_cached=row.tokens_cached,
        tokens_out=row.tokens_out, cost=Decimal(row.cost_micros) if row.cost_micros else NOTHING,
        unknown=Decimal(unknown) if unknown else NOTHING,
        latency_us=row.inference_us, waiting_us=row.waiting_us, score=row.score,
        passed=row.passed, fallback=row.lane != first, last=last,
        api_in=row.tokens_in if counts else 0, api_out=row.tokens_out if counts else 0,
    )  # fmt: skip


def _uncalled(row: Any, lanes: Lanes) -> Usage:
    first = lanes.planned(row.plan)
    settled, asked = row.state == State.SETTLED.value, Role(row.role)
    counts = asked is Role.QUESTION
    return Usage(
        time=row.ended, run=row.run_id, decision=row.id, attempt="", kind=row.kind,
        role=asked, lane=row.answer_lane or "",
        tier=lanes.tier(row.profile, row.answer_lane),
        model=lanes.model(row.profile, row.answer_lane), place=None,
        planned=None if first is None else lanes.place(row.profile, first),
        outcome=(row.status or row.state) if settled else row.state,
        api_in=row.chars // CHARS_PER_TOKEN if counts else 0,
        api_out=row.said // CHARS_PER_TOKEN + 1 if counts else 0,
    )  # fmt: skip
