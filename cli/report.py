"""Prints a run's report for a person."""

from __future__ import annotations

from rich.table import Table

from cli.output import milliseconds, out, percent, plain, usd
from ledger.budgets import BudgetUse
from ledger.reports import Report


def print_report(report: Report) -> None:
    """The report as tables."""
    profile = f"profile {report.profile}"
    # Kinds are whatever was asked for, and profiles and ledgers lie where they lie.
    for part in (
        f"\nRun {report.run} ({report.mode}, {profile}, seed {report.seed})",
        _summary(report),
        _lanes(report),
        _kinds(report),
        *(f"Tier {tier} is absent: {reason}. Plans end on the last tier that is there."
          for tier, reason in report.absent_tiers.items()),
        f"Ledger: {report.ledger}",
    ):  # fmt: skip
        out.print(part, markup=False)


def _summary(report: Report) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, text in _figures(report):
        table.add_row(name, plain(text))
    return table


def _figures(report: Report) -> list[tuple[str, str]]:
    """What is summed up, and the figures of it in words."""
    counts = report.decisions
    rate = report.decisions_per_second
    speed = "-" if rate is None else f"{rate:.1f} decisions/s over {report.seconds:.1f} s"
    waiting, inference = report.latency_ms.waiting, report.latency_ms.inference
    return [
        ("Decisions", f"{counts.total} ({_listed(counts.by_status)})"),
        ("Not settled", f"{report.unsettled}; empty answers {report.empty}"),
        ("By tier", _listed(counts.by_tier)),
        ("Climbed", f"{report.escalated} ({percent(report.escalation_rate)})"),
        ("Right by the asker's rules",
         f"{percent(report.accuracy.overall)} of {report.accuracy.known}; "
         + ", ".join(f"{t} {percent(a)}" for t, a in report.accuracy.by_tier.items())),
        ("Tokens", ", ".join(f"{name} {n:,}" for name, n in report.tokens.items())),
        ("Cost", usd(report.cost_usd)),
        *_audits(report),
        ("Unknown charges", f"{report.unknown_charges}, at most {usd(report.unknown_charge_usd)}"),
        *(("Budget " + use.scope.split(":")[0], budget_line(use)) for use in report.budgets),
        (f"All on {report.all_cloud_model}",
         f"{usd(report.all_cloud_cost_usd)}; saved {usd(report.savings_usd)} "
         f"({percent(report.savings_share)})"),
        ("Speed", speed),
        ("Waiting", f"p50 {milliseconds(waiting.p50)}, p95 {milliseconds(waiting.p95)}"),
        ("Inference", f"p50 {milliseconds(inference.p50)}, p95 {milliseconds(inference.p95)}"),
        ("From the cache", percent(report.cache_share)),
    ]  # fmt: skip


def _audits(report: Report) -> list[tuple[str, str]]:
    audits = report.audits
    if not audits.asked:
        return []
    text = (
        f"{audits.asked}; {audits.agreed} of {audits.labelled} agreed; overruled "
        f"{audits.overruled}, refused {audits.refused}, open {audits.open}; "
        f"{usd(audits.cost_usd)} of the cost"
    )
    return [("Audits", text)]


def budget_line(use: BudgetUse) -> str:
    """A budget's use in words."""
    parts = []
    if use.limit_usd is not None:
        parts.append(f"{usd(use.spent_usd + use.reserved_usd)} of {usd(use.limit_usd)}")
    if use.limit_calls is not None:
        parts.append(f"{use.calls} of {use.limit_calls} calls")
    mark = " (nearly used up)" if use.alert else ""
    return f"{use.scope}: {', '.join(parts)}{mark}"


def _lanes(report: Report) -> Table:
    table = Table(title="Lanes", title_justify="left")
    for column in ("lane", "model", "attempts", "failed", "passed", "tokens in", "out", "cost"):
        table.add_column(column, justify="left" if column in ("lane", "model") else "right")
    for name, lane in report.lanes.items():
        table.add_row(
            name, lane.model, str(lane.attempts), str(lane.failed), percent(lane.pass_rate),
            f"{lane.tokens_in:,}", f"{lane.tokens_out:,}", usd(lane.cost_usd),
        )  # fmt: skip
    return table


def _kinds(report: Report) -> Table:
    table = Table(title="Kinds", title_justify="left")
    table.add_column("kind")
    table.add_column("decisions", justify="right")
    table.add_column("right", justify="right")
    for kind, count in report.decisions.by_kind.items():
        table.add_row(plain(kind), str(count), percent(report.accuracy.by_kind.get(kind)))
    return table


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
