"""Projects costs: of a workload, or of what was used, over days, weeks, months and years."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal
from itertools import accumulate, pairwise

from config.errors import InputError
from config.prices import Price
from config.workloads import Workload
from ledger.usage import Place
from producers.costs_ladder import Ladder
from producers.costs_projection import (
    Asked,
    Projection,
    TierUse,
    periods,
    references,
    tier_use,
)
from producers.costs_report import MILLION
from producers.costs_sums import DAY_US, By, Sums, Totals

ZERO = Decimal(0)


def project(workload: Workload, ladder: Ladder, alone: Mapping[str, Price]) -> Projection:
    """What a workload costs on a ladder, and on each model of ``alone`` by itself.

    Raises:
        InputError: the workload has calls on a tier that the ladder has not.
    """
    asked = _asked(workload, ladder)
    calls, days = _sum(one.calls for one in asked), Decimal(workload.days)
    routed = _sum(one.calls * _micros(ladder.charge(one.lane), one) for one in asked)
    fallback = workload.fallback * _falling_back(asked, ladder)
    whole = {
        model: _sum(one.calls * _micros(price, one) for one in asked)
        for model, price in alone.items()
    }
    return Projection(
        workload=workload.name, description=workload.description, source="workload",
        profile=ladder.catalog.profile, days=days, iterations=Decimal(workload.iterations),
        calls=calls, fallback_share=workload.fallback, api_model=ladder.api_model,
        cost=periods(routed + fallback, days), routed=periods(routed, days),
        fallback=periods(fallback, days), references=references(whole, routed + fallback, days),
        tiers=_tiers(asked, calls, ladder), expected=_expected(workload), asked=asked,
        notes=[*_notes(workload, ladder, calls), *_over_budget(ladder, routed + fallback, days)],
    )  # fmt: skip


def measured(
    totals: Totals, source: str, days: Decimal | None, ladder: Ladder, names: Sequence[str]
) -> Projection:
    """The same of usage records, summed up by kind and by tier at the prices of ``names`` in order.

    ``days`` is how long they are taken to cover; absent: from the first to the last of them, but
    a day at least.

    Raises:
        InputError: there are none, or neither they nor ``days`` tell how long.
    """
    if not totals.records:
        raise InputError(f"{source} has no usage that could be projected: choose another")
    span, every = _covered(totals, source) if days is None else days, totals.everything
    cost, calls = every.cost / span, Decimal(every.calls) / span
    whole = {name: micros / span for name, micros in zip(names, every.api, strict=True)}
    local = every.answers - every.routed
    return Projection(
        workload=source, description="as it was used", source="usage",
        profile=ladder.catalog.profile, days=span,
        iterations=Decimal(every.answers + every.uncalled.total()) / span, calls=calls,
        fallback_share=Decimal(every.fell_back) / local if local else None, api_model=None,
        cost=periods(cost, span), routed=periods(every.routed_cost / span, span),
        fallback=periods(every.fell_back_cost / span, span),
        references=references(whole, cost, span),
        tiers={name: tier_use(one.calls / span, calls)
               for name, one in sorted(totals.groups[By.TIER].items()) if one.calls},
        expected={},
        asked=[_used(name, one, calls, span)
               for name, one in sorted(totals.groups[By.KIND].items()) if one.calls],
        notes=[*_span_notes(totals, span, days), *_over_budget(ladder, cost, span)],
    )  # fmt: skip


def _asked(workload: Workload, ladder: Ladder) -> list[Asked]:
    found = []
    for name, share in (workload.mix or workload.tiers).items():
        lane = ladder.lane_of(name) if workload.mix else ladder.first_of(name, workload.name)
        calls = workload.iterations * share
        if workload.whole_calls:
            calls = calls.to_integral_value(ROUND_FLOOR)
        tokens_in, tokens_out = _tokens(name, workload, ladder)
        found.append(
            Asked(
                name=name, share=share, calls=calls, tokens_in=tokens_in, tokens_out=tokens_out,
                tier=ladder.catalog.lanes[lane].tier if lane else name, lane=lane,
                place=ladder.place_of(lane),
            )
        )  # fmt: skip
    return found


def _tokens(name: str, workload: Workload, ladder: Ladder) -> tuple[Decimal, Decimal]:
    if workload.each is not None:
        return Decimal(workload.each.input), Decimal(workload.each.output)
    tokens = ladder.catalog.kind(name).expected_tokens
    out = tokens * workload.output_share
    return tokens - out, out


def _micros(price: Price, one: Asked) -> Decimal:
    """Micro-dollars of a call; it is one of many, so nothing is rounded."""
    return price.input * one.tokens_in + price.output * one.tokens_out


def _falling_back(asked: Sequence[Asked], ladder: Ladder) -> Decimal:
    """What all calls that begin on local lanes would cost on the API."""
    model = ladder.api_model
    if model is None:
        return ZERO
    price = ladder.catalog.models[model].price
    return _sum(one.calls * _micros(price, one) for one in asked if one.place is Place.LOCAL)


def _tiers(asked: Sequence[Asked], calls: Decimal, ladder: Ladder) -> dict[str, TierUse]:
    tiers = ladder.catalog.tiers
    by_tier = dict.fromkeys(sorted(tiers, key=lambda name: tiers[name].rank), ZERO)
    for one in asked:
        by_tier[one.tier] += one.calls
    return {tier: tier_use(count, calls) for tier, count in by_tier.items()}


def _expected(workload: Workload) -> dict[str, TierUse]:
    """The stated distribution in whole calls, which add up to all iterations."""
    ends = [share * workload.iterations for share in accumulate(workload.distribution.values())]
    whole = [end.to_integral_value(ROUND_FLOOR) for end in [ZERO, *ends]]
    return {
        tier: TierUse(calls=after - before, share=share)
        for (tier, share), (before, after) in zip(
            workload.distribution.items(), pairwise(whole), strict=True
        )
    }


def _notes(workload: Workload, ladder: Ladder, calls: Decimal) -> list[str]:
    notes = []
    if calls != workload.iterations:
        notes.append(
            f"{calls} of {workload.iterations} iterations a day are priced: calls of each kind are "
            "rounded down to whole ones"
        )
    if workload.each is None and not workload.output_share:
        notes.append("tokens are not told apart and priced as input (--output-share tells them)")
    if ladder.api_model is None:
        notes.append("the profile has no API lane: what it cannot answer is not paid for either")
    return notes


def _over_budget(ladder: Ladder, daily: Decimal, days: Decimal) -> list[str]:
    budget, notes = ladder.catalog.cloud_budget, []
    bounds = {"per_day_usd": (budget.per_day_usd, daily),
              "per_run_usd, if it is one run": (budget.per_run_usd, daily * days)}  # fmt: skip
    for name, (limit, micros) in bounds.items():
        if limit is not None and micros > limit * MILLION:
            notes.append(
                f"${micros / MILLION:,.2f} is over cloud_budget.{name} (${limit}): what is beyond "
                "it would be answered locally"
            )
    return notes


def _covered(totals: Totals, source: str) -> Decimal:
    """The days from the first record to the last, one at least."""
    if totals.first is None or totals.last is None:
        raise InputError(f"{source} has no times: say with --days how long it covers")
    return max(Decimal(1), Decimal(totals.last - totals.first) / DAY_US)


def _used(name: str, one: Sums, calls: Decimal, span: Decimal) -> Asked:
    return Asked(
        name=name, share=Decimal(one.calls) / calls / span, calls=one.calls / span,
        tokens_in=Decimal(one.tokens_in) / one.calls,
        tokens_out=Decimal(one.tokens_out) / one.calls, tier="", lane="", place=None,
    )  # fmt: skip


def _span_notes(totals: Totals, span: Decimal, given: Decimal | None) -> list[str]:
    notes, every = [], totals.everything
    if given is None and span == 1:
        notes.append("all of it lies within a day, and is taken as one day (--days says otherwise)")
    if every.unknown_charges:
        notes.append(
            f"{every.unknown_charges} unknown charges, at most ${every.unknown / MILLION:,.4f}, "
            "are not in the cost"
        )
    return notes


def _sum(values: Iterable[Decimal]) -> Decimal:
    return sum(values, ZERO)
