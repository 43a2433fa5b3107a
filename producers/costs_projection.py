"""What a projection of costs says: money in dollars, calls by the day."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, PlainSerializer

from ledger.usage import Place
from producers.costs_report import MILLION

Number = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]
"""Exact here, a plain number in JSON."""
WEEK, MONTH, YEAR = 7, 30, 365  # days


class Periods(BaseModel):
    """Dollars a day, a week, a month of 30 days, a year of 365, and over all days of it."""

    daily: Number
    weekly: Number
    monthly: Number
    yearly: Number
    total: Number


class Reference(BaseModel):
    """Everything on one model, and what the tiers save of that."""

    model: str
    cost: Periods
    savings: Periods
    savings_share: float | None


class TierUse(BaseModel):
    """Calls of a day on a tier, and their share of all."""

    calls: Number
    share: Number


class Asked(BaseModel):
    """One sort of calls: how many a day, of how many tokens each, and where they begin."""

    name: str
    share: Number
    calls: Number
    tokens_in: Number
    tokens_out: Number
    tier: str
    lane: str
    place: Place | None


class Projection(BaseModel):
    """What a workload costs, or a usage log drawn out over time.

    ``cost`` is that of the tiers: ``routed`` to the API by their plan, and ``fallback`` to it.
    ``expected`` is the distribution that a workload states, ``tiers`` the one that follows.
    """

    workload: str
    description: str
    source: str
    profile: str
    days: Number
    iterations: Number
    calls: Number
    fallback_share: Number | None
    api_model: str | None
    """Where calls of local lanes fall back to, as it is projected."""
    cost: Periods
    routed: Periods
    fallback: Periods
    references: list[Reference]
    tiers: dict[str, TierUse]
    expected: dict[str, TierUse]
    asked: list[Asked]
    notes: list[str]


def periods(micros: Decimal, days: Decimal) -> Periods:
    """Micro-dollars of a day as dollars of each period."""
    daily = micros / MILLION
    return Periods(
        daily=daily, weekly=daily * WEEK, monthly=daily * MONTH, yearly=daily * YEAR,
        total=daily * days,
    )  # fmt: skip


def references(alone: Mapping[str, Decimal], cost: Decimal, days: Decimal) -> list[Reference]:
    """Each model's micro-dollars a day beside the ``cost`` of the tiers."""
    return [
        Reference(
            model=model, cost=periods(micros, days), savings=periods(micros - cost, days),
            savings_share=float(1 - cost / micros) if micros else None,
        )
        for model, micros in alone.items()
    ]  # fmt: skip


def tier_use(calls: Decimal, of: Decimal) -> TierUse:
    """Calls of a day with their share of all."""
    return TierUse(calls=calls, share=calls / of if of else Decimal(0))
