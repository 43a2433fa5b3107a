"""Prints costs, projections and targets for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal

from rich.console import Console
from rich.table import Table

from cli.output import milliseconds, out, percent, usd
from producers.costs_projection import Periods, Projection, TierUse
from producers.costs_report import CostLine, CostReport
from producers.costs_targets import Check, Held, Unit

WIDE = 1000  # columns; a table takes what it needs of them
CENT = Decimal("0.01")
SMALL = Decimal("0.1")


def print_report(found: CostReport) -> None:
    """A report: what it covers, its sums, its roles, and its groups."""
    of = "" if found.kind is None else f", kind {found.kind}"
    when = "all of it" if found.since == "all" else f"the last {found.since}"
    out.print(f"\nCosts of {found.source}, {when}{of}", markup=False)
    if found.first is not None:
        out.print(f"from {found.first} to {found.last}")
    summary = Table(show_header=False, box=None, padding=(0, 2))
    for name, text in _figures(found):
        summary.add_row(name, text)
    _wide(summary)
    _print_lines("role", found.roles)
    _print_lines(found.by, found.groups)
    for note in found.notes:
        out.print(f"note: {note}", markup=False)


def _figures(found: CostReport) -> list[tuple[str, str]]:
    total = found.total
    uncalled = ", ".join(f"{name} {count:,}" for name, count in total.uncalled.items())
    local = total.calls - total.api_calls
    return [
        ("Cost", usd(total.cost_usd)),
        ("Unknown charges",
         f"{total.unknown_charges}, at most {usd(total.unknown_charge_usd)}"),
        (f"All on {found.reference_model or 'no reference model'}",
         f"{usd(total.api_only_usd)}; saved {usd(total.savings_usd)} "
         f"({percent(total.savings_share)})"),
        ("Calls", f"{total.calls:,}: {local:,} local, {total.api_calls:,} API; succeeded "
         f"{percent(total.success_rate)}"),
        ("Answered by a call", f"{total.answers:,}: {total.routed_to_api:,} sent to the API by "
         f"routing, {total.fell_back_to_api:,} fell back to it"),
        ("Answered by no call", uncalled or "none"),
        ("Tokens", f"in {total.tokens_in:,} (cached {total.tokens_cached:,}), "
         f"out {total.tokens_out:,}"),
        ("Quality", f"score {_score(total.average_score)} on average, passed "
         f"{percent(total.pass_rate)}"),
        ("Latency", f"{milliseconds(total.average_latency_ms)} on average, and "
         f"{milliseconds(total.average_waiting_ms)} in the queue"),
    ]  # fmt: skip


def _print_lines(by: str, lines: Mapping[str, CostLine]) -> None:
    table = Table(by, box=None)
    for name in ("calls", "succeeded", "answers", "tokens in", "cached", "out", "score",
                 "passed", "latency", "cost", "all on the API", "saved"):  # fmt: skip
        table.add_column(name, justify="right")
    for name, line in lines.items():
        table.add_row(
            name, f"{line.calls:,}", percent(line.success_rate), f"{line.answers:,}",
            f"{line.tokens_in:,}", f"{line.tokens_cached:,}", f"{line.tokens_out:,}",
            _score(line.average_score), percent(line.pass_rate),
            milliseconds(line.average_latency_ms), usd(line.cost_usd), usd(line.api_only_usd),
            percent(line.savings_share),
        )  # fmt: skip
    _wide(table)


def print_projections(found: Sequence[Projection]) -> None:
    """Each projection with its periods, its distribution, and, if it is the only one, its mix."""
    for one in found:
        _print_projection(one)
    if len(found) == 1:
        _print_mix(found[0])


def _print_projection(one: Projection) -> None:
    out.print(f"\n{one.workload}: {one.description} (profile {one.profile})", markup=False)
    table = Table("", box=None)
    days = f"{_count(one.days)} {'day' if one.days == 1 else 'days'}"
    for name in ("a day", "a week", "a month", "a year", days, ""):
        table.add_column(name, justify="right")
    for reference in one.references:
        table.add_row(f"all on {reference.model}", *_periods(reference.cost), "")
    table.add_row("on the tiers", *_periods(one.cost), "")
    table.add_row("  sent to the API by routing", *_periods(one.routed), "")
    fallback = "-" if one.fallback_share is None else percent(float(one.fallback_share))
    table.add_row(f"  fell back to it ({fallback})", *_periods(one.fallback), "")
    for reference in one.references:
        table.add_row(f"saved of {reference.model}", *_periods(reference.savings),
                      percent(reference.savings_share))  # fmt: skip
    _wide(table)
    out.print(f"Calls a day  {_count(one.calls)}: {_tiers(one.tiers)}", markup=False)
    if one.expected:
        out.print(f"Expected     {_tiers(one.expected)}", markup=False)
    for note in one.notes:
        out.print(f"note: {note}", markup=False)


def _print_mix(one: Projection) -> None:
    table = Table("", box=None)
    for name in ("share", "calls a day", "tokens in", "out"):
        table.add_column(name, justify="right")
    table.add_column("begins on")
    for asked in one.asked:
        table.add_row(
            asked.name, percent(float(asked.share)), _count(asked.calls), _count(asked.tokens_in),
            _count(asked.tokens_out), f"{asked.tier} {asked.lane}".strip(),
        )  # fmt: skip
    out.print()
    _wide(table)


def print_check(found: Check) -> None:
    """Each target beside what was measured, and where questions went."""
    when = "all of it" if found.since == "all" else f"the last {found.since}"
    out.print(f"\nTargets of {found.source}, {when}", markup=False)
    table = Table("", "target", "measured", "", "", box=None)
    for one in found.targets:
        table.add_row(one.name, f"{one.bound} {_value(one, one.target)}", _measured(one),
                      one.word.value, one.note)  # fmt: skip
    _wide(table)
    api = found.api
    out.print(
        f"Of {api.answered:,} questions answered by a call, {api.routed:,} were sent to the API by "
        f"routing ({percent(api.routed_share)}); of the others {api.fell_back:,} fell back to it "
        f"({percent(api.fell_back_share)})"
    )


def money(amount: Decimal) -> str:
    """Dollars to the cent, half a cent up; below ten cents to a hundredth of a cent."""
    places = CENT if abs(amount) >= SMALL or not amount else CENT / 100
    return f"${amount.quantize(places, ROUND_HALF_UP):,}"


def _periods(one: Periods) -> tuple[str, ...]:
    amounts = (one.daily, one.weekly, one.monthly, one.yearly, one.total)
    return tuple(money(amount) for amount in amounts)


def _tiers(tiers: Mapping[str, TierUse]) -> str:
    return ", ".join(
        f"{name} {_count(use.calls)} ({percent(float(use.share))})" for name, use in tiers.items()
    )


def _count(value: Decimal) -> str:
    whole = value == value.to_integral_value()
    return f"{int(value):,}" if whole else f"{value:,.1f}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _measured(one: Held) -> str:
    return "-" if one.measured is None else f"{_value(one, one.measured)} of {one.of:,}"


def _value(one: Held, value: float) -> str:
    match one.unit:
        case Unit.USD:
            return usd(value)
        case Unit.MS:
            return milliseconds(value)
        case Unit.COUNT:
            return f"{value:,.0f}"
        case Unit.SHARE if one.name == "score":
            return _score(value)
        case Unit.SHARE:
            return percent(value)


def _wide(table: Table) -> None:
    Console(width=WIDE, highlight=False, markup=False).print(table)
