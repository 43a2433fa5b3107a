"""Sums of usage records as people and programs read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal

from pydantic import BaseModel

from producers.costs_sums import EPOCH, By, Sums, Totals

MILLION = 1_000_000


class CostLine(BaseModel):
    """Sums as people and programs read them: money in dollars, shares between 0 and 1.

    ``calls`` are all calls, ``answers`` the decisions that one of them answered, ``uncalled``
    those that none did, by how they ended; audits are among the calls alone.
    """

    calls: int
    api_calls: int
    success_rate: float | None
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost_usd: float
    unknown_charges: int
    unknown_charge_usd: float
    average_score: float | None
    pass_rate: float | None
    average_latency_ms: float | None
    average_waiting_ms: float | None
    fallback_calls: int
    answers: int
    routed_to_api: int
    fell_back_to_api: int
    uncalled: dict[str, int]
    api_only_usd: float | None
    savings_usd: float | None
    savings_share: float | None


class CostReport(BaseModel):
    """What some records cost, in all, by role and by whatever they are told apart by."""

    source: str
    since: str
    kind: str | None
    first: str | None
    last: str | None
    reference_model: str | None
    total: CostLine
    roles: dict[str, CostLine]
    by: str
    groups: dict[str, CostLine]
    notes: list[str] = []


def line_of(sums: Sums) -> CostLine:
    """Sums in dollars, shares and averages; ``None`` where there is nothing to take them of."""
    api = sums.api[0] if sums.api else None
    return CostLine(
        calls=sums.calls, api_calls=sums.api_calls,
        success_rate=_share(sums.answered, sums.calls),
        tokens_in=sums.tokens_in, tokens_cached=sums.tokens_cached, tokens_out=sums.tokens_out,
        cost_usd=usd_of(sums.cost), unknown_charges=sums.unknown_charges,
        unknown_charge_usd=usd_of(sums.unknown), average_score=_share(sums.score, sums.scored),
        pass_rate=_share(sums.passed, sums.judged),
        average_latency_ms=_share(sums.latency_us / 1000, sums.timed),
        average_waiting_ms=_share(sums.waiting_us / 1000, sums.timed),
        fallback_calls=sums.fallbacks, answers=sums.answers, routed_to_api=sums.routed,
        fell_back_to_api=sums.fell_back, uncalled=dict(sums.uncalled.most_common()),
        api_only_usd=None if api is None else usd_of(api),
        savings_usd=None if api is None else usd_of(api - sums.cost),
        savings_share=savings_share(sums.cost, api),
    )  # fmt: skip


def cost_report(
    totals: Totals,
    source: str,
    since: str,
    kind: str | None,
    by: By,
    reference: str | None,
    notes: Sequence[str],
) -> CostReport:
    """The report of sums; ``reference`` is the model whose price they were summed up with."""
    return CostReport(
        source=source, since=since, kind=kind, first=moment(totals.first),
        last=moment(totals.last), reference_model=reference, total=line_of(totals.everything),
        roles=lines_of({role.value: one for role, one in totals.roles.items()}), by=by.value,
        groups=lines_of(totals.groups[by]), notes=list(notes),
    )  # fmt: skip


def lines_of(sums: Mapping[str, Sums]) -> dict[str, CostLine]:
    """Groups in the order of their names."""
    return {name: line_of(sums[name]) for name in sorted(sums)}


def savings_share(cost: Decimal, api: Decimal | int | None) -> float | None:
    """The share of ``api`` that was not spent; ``None`` if there is none or it is 0."""
    return None if not api else float(1 - cost / api)


def usd_of(micros: Decimal | int) -> float:
    """Micro-dollars as dollars, for display; sums are made before this."""
    return float(Decimal(micros) / MILLION)


def moment(time_us: int | None) -> str | None:
    """A time as ISO 8601 in UTC with its microseconds, ``None`` if there is none."""
    if time_us is None:
        return None
    at = EPOCH + timedelta(microseconds=time_us)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
