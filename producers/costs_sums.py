"""Sums usage records up: cost, calls, tokens, quality, and what the API alone would have cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from config.prices import Price
from ledger.usage import NONE, Place, Role, Usage

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = 86_400 * 1_000_000


class By(StrEnum):
    """What records are told apart by."""

    RUN = "run"
    DAY = "day"
    TIER = "tier"
    MODEL = "model"
    KIND = "kind"
    LANE = "lane"


@dataclass
class Sums:
    """Sums over records; money in micro-dollars, times in microseconds.

    ``api`` has what the same answers would have cost on each reference model alone. ``by_api``
    are the calls of providers: ``routed`` there by their plan, or ``fell_back`` to them.
    """

    calls: int = 0
    answered: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    cost: Decimal = Decimal(0)
    unknown: Decimal = Decimal(0)
    unknown_charges: int = 0
    scored: int = 0
    score: float = 0.0
    judged: int = 0
    passed: int = 0
    timed: int = 0
    latency_us: int = 0
    waiting_us: int = 0
    fallbacks: int = 0
    api: list[int] = field(default_factory=list)
    api_calls: int = 0
    routed_cost: Decimal = Decimal(0)
    fell_back_cost: Decimal = Decimal(0)
    answers: int = 0
    routed: int = 0
    fell_back: int = 0
    uncalled: Counter[str] = field(default_factory=Counter)

    def add(self, one: Usage, api: list[int]) -> None:
        """Count one record; ``api`` is what each reference model would have taken for it."""
        self.api = [a + b for a, b in zip(self.api, api, strict=True)] if self.api else api
        if one.place is None:
            self.uncalled[one.outcome] += 1
            return
        self.calls += 1
        self.answered += one.success
        self.tokens_in += one.tokens_in
        self.tokens_cached += one.tokens_cached
        self.tokens_out += one.tokens_out
        if one.cost:
            self.cost += one.cost
        self.fallbacks += one.fallback
        if one.unknown:
            self.unknown += one.unknown
            self.unknown_charges += 1
        self._add_quality(one)
        self._add_place(one, one.place)

    def merge(self, other: Sums) -> None:
        """Take up all sums of another; both have the same reference models."""
        for one in fields(self):
            if one.name != "api":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        self.api = [a + b for a, b in zip(self.api or [0] * len(other.api), other.api, strict=True)]

    def _add_quality(self, one: Usage) -> None:
        if one.score is not None:
            self.scored += 1
            self.score += one.score
        if one.passed is not None:
            self.judged += 1
            self.passed += one.passed
        if one.success and one.latency_us is not None:
            self.timed += 1
            self.latency_us += one.latency_us
            self.waiting_us += one.waiting_us or 0

    def _add_place(self, one: Usage, place: Place) -> None:
        self.answers += one.last
        if place is Place.LOCAL:
            return
        self.api_calls += 1
        if one.planned is Place.API:
            self.routed += one.last
            self.routed_cost += one.cost
        else:
            self.fell_back += one.last
            self.fell_back_cost += one.cost


@dataclass
class Totals:
    """All sums of some records, and the time they span (microseconds since 1970)."""

    everything: Sums
    roles: dict[Role, Sums]
    groups: dict[By, dict[str, Sums]]
    first: int | None = None
    last: int | None = None

    @property
    def records(self) -> int:
        """How many there were."""
        return self.everything.calls + self.everything.uncalled.total()

    def role(self, role: Role) -> Sums:
        """The sums of one role, if need be all zero."""
        return self.roles.get(role, Sums())


def sum_up(records: Iterable[Usage], prices: Iterable[Price] = (), by: Iterable[By] = ()) -> Totals:
    """Sums of records, of each role, and of the groups that each of ``by`` tells apart.

    ``prices`` are those of the reference models. Nothing of a record is kept.
    """
    prices = tuple(prices)
    roles: defaultdict[Role, Sums] = defaultdict(Sums)
    groups: dict[By, defaultdict[str, Sums]] = {one: defaultdict(Sums) for one in by}
    first, last = None, None
    for one in records:
        counts = one.api_in or one.api_out
        api = [price.micros(one.api_in, one.api_out) if counts else 0 for price in prices]
        roles[one.role].add(one, api)
        for how, sums in groups.items():
            sums[group_of(one, how)].add(one, api)
        if one.time is not None:
            first = one.time if first is None or one.time < first else first
            last = one.time if last is None or one.time > last else last
    return Totals(_whole(roles.values()), dict(roles),
                  {how: dict(sums) for how, sums in groups.items()}, first, last)  # fmt: skip


def _whole(parts: Iterable[Sums]) -> Sums:
    whole = Sums()
    for part in parts:
        whole.merge(part)
    return whole


def group_of(one: Usage, by: By) -> str:
    """The name of the group that a record belongs to."""
    match by:
        case By.RUN:
            return one.run or NONE
        case By.DAY:
            return "unknown" if one.time is None else day_of(one.time).isoformat()
        case By.TIER:
            return one.tier or NONE
        case By.MODEL:
            return one.model or NONE
        case By.KIND:
            return one.kind or NONE
        case By.LANE:
            return one.lane or NONE


def day_of(time_us: int) -> date:
    """The day of the calendar (UTC)."""
    return (EPOCH + timedelta(days=time_us // DAY_US)).date()
