"""What happened in a run, in figures: the report that commands print."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from config.catalog import Catalog
from config.settings import Settings
from ledger import certificates, run_sums
from ledger.audit_use import AuditUse, audit_use
from ledger.budgets import BudgetUse, usage
from ledger.certificates import CertificateState
from ledger.clock import SECOND, now
from ledger.database import ledger_error, ledger_place, open_ledger, reading
from ledger.money import dollars
from ledger.providers import ProviderState, states
from ledger.run_sums import ANSWERED, NOT_KNOWN
from ledger.runs import RunInfo
from ledger.tables import TABLES

DECISIONS = TABLES.tables["decision"]


class Counts(BaseModel):
    """How many decisions there are, and how they divide."""

    total: int
    by_status: dict[str, int]
    by_tier: dict[str, int]
    by_kind: dict[str, int]


class Share(BaseModel):
    """Right answers among those for which it is known what is right."""

    right: int = 0
    known: int = 0

    @property
    def share(self) -> float | None:
        """Between 0 and 1; ``None`` if nothing is known."""
        return self.right / self.known if self.known else None


class Accuracy(BaseModel):
    """Shares of right answers by the asker's own rules, between 0 and 1."""

    overall: float | None
    known: int
    by_kind: dict[str, float]
    by_tier: dict[str, float]


class Quantiles(BaseModel):
    """Milliseconds below which half and 95 % of attempts stayed."""

    p50: float | None
    p95: float | None


class Latency(BaseModel):
    """Milliseconds an attempt waited in its queue, and was worked on."""

    waiting: Quantiles
    inference: Quantiles


class LaneUse(BaseModel):
    """What one lane did. ``pass_rate`` is the share of its answers that passed the check."""

    tier: str
    model: str
    attempts: int
    failed: int
    passed: int
    pass_rate: float | None
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    cost_usd: float
    unknown_charge_usd: float


class Report(BaseModel):
    """Everything a run's end tells. Money in dollars, converted from whole micro-dollars."""

    run: str
    mode: str
    profile: str
    seed: int
    decisions: Counts
    escalated: int
    escalation_rate: float | None
    audits: AuditUse
    unsettled: int
    empty: int
    accuracy: Accuracy
    lanes: dict[str, LaneUse]
    absent_tiers: dict[str, str]
    tokens: dict[str, int]
    cost_usd: float
    unknown_charge_usd: float
    """The most that calls can have cost of which nobody knows whether they were served."""
    unknown_charges: int
    budgets: list[BudgetUse]
    all_cloud_cost_usd: float | None
    all_cloud_model: str | None
    savings_usd: float | None
    savings_share: float | None
    seconds: float
    decisions_per_second: float | None
    latency_ms: Latency
    cache_share: float
    """Of all decisions: those that the cache answered, also below the bar."""
    ledger: str


def report(engine: Engine, settings: Settings, catalog: Catalog, run: RunInfo) -> Report:
    """The report of one run. ``catalog`` is the run's whole profile, absent lanes included."""
    with reading(engine) as connection:
        groups = run_sums.decision_groups(connection, run.id)
        tries = run_sums.attempt_groups(connection, run.id)
        audits = audit_use(connection, run.id)
        latency = _latency(connection, run.id)
        all_cloud = _all_cloud_micros(connection, run.id, catalog)
    counts = _counts(groups, catalog)
    total, escalated = counts.total, sum(g.number for g in groups if g.climbed)
    spent = sum(int(t.cost_micros) for t in tries)
    unknown = [t for t in tries if t.outcome in NOT_KNOWN]
    seconds = _seconds(groups)
    return Report(
        run=run.id, mode=run.mode, profile=run.profile, seed=run.seed, decisions=counts,
        escalated=escalated, escalation_rate=escalated / total if total else None, audits=audits,
        unsettled=sum(g.open for g in groups), empty=sum(g.empty for g in groups),
        accuracy=_accuracy(groups, catalog), lanes=_lanes(tries, catalog),
        absent_tiers={lane.tier: lane.reason for lane in run.absent},
        tokens=_tokens(tries), cost_usd=dollars(spent),
        unknown_charge_usd=dollars(_estimated(unknown)),
        unknown_charges=sum(t.number for t in unknown),
        budgets=usage(engine, run.id, catalog.cloud_budget.alert_share, now()),
        all_cloud_cost_usd=None if all_cloud is None else dollars(all_cloud),
        all_cloud_model=catalog.reference_model,
        savings_usd=None if all_cloud is None else dollars(all_cloud - spent),
        savings_share=1 - spent / all_cloud if all_cloud else None,
        seconds=seconds, decisions_per_second=total / seconds if seconds else None,
        latency_ms=latency,
        cache_share=sum(g.served for g in groups) / total if total else 0.0,
        ledger=ledger_place(settings),
    )  # fmt: skip


class Overview(BaseModel):
    """What a ledger holds of all runs: decisions by state, today's budgets, and what stands."""

    decisions: dict[str, int] = {}
    budgets: list[BudgetUse] = []
    providers: list[ProviderState] = []
    certificates: list[CertificateState] = []


def overview(settings: Settings) -> Overview:
    """What a ledger holds now.

    Raises:
        LedgerError: it does not answer.
    """
    engine = open_ledger(settings)
    query = select(DECISIONS.c.state, func.count()).group_by(DECISIONS.c.state)
    catalog, moment = settings.catalog, now()
    try:
        with reading(engine) as connection:
            by_state = {state: count for state, count in connection.execute(query)}  # noqa: C416
        return Overview(
            decisions=by_state,
            budgets=usage(engine, None, catalog.cloud_budget.alert_share, moment),
            providers=states(engine, catalog, moment),
            certificates=certificates.states(engine),
        )
    except DBAPIError as error:
        raise ledger_error(engine, error) from None
    finally:
        engine.dispose()


def _tokens(tries: Sequence[Any]) -> dict[str, int]:
    return {
        "input": sum(int(t.tokens_in) for t in tries),
        "cached": sum(int(t.tokens_cached) for t in tries),
        "output": sum(int(t.tokens_out) for t in tries),
    }


def _estimated(tries: Sequence[Any]) -> int:
    return sum(int(t.estimated_micros) for t in tries)


def _counts(groups: Sequence[Any], catalog: Catalog) -> Counts:
    tiers = Counter(dict.fromkeys(_tiers_in_order(catalog), 0))
    endings: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for group in groups:
        tiers[_tier(group, catalog)] += group.number
        endings[group.ended] += group.number
        kinds[group.kind] += group.number
    return Counts(
        total=sum(g.number for g in groups),
        by_status=dict(endings.most_common()),
        by_tier=dict(tiers),
        by_kind=dict(kinds.most_common()),
    )


def _tiers_in_order(catalog: Catalog) -> list[str]:
    return sorted(catalog.tiers, key=lambda name: catalog.tiers[name].rank)


def _tier(group: Any, catalog: Catalog) -> str:
    """The tier whose answer it is; a fallback came from none."""
    lane = catalog.lanes.get(group.answer_lane or "")
    return lane.tier if lane is not None else "none"


def _accuracy(groups: Sequence[Any], catalog: Catalog) -> Accuracy:
    overall = Share()
    kinds: dict[str, Share] = defaultdict(Share)
    tiers: dict[str, Share] = defaultdict(Share)
    for group in groups:
        if not group.known:
            continue
        for share in (overall, kinds[group.kind], tiers[_tier(group, catalog)]):
            share.known += group.known
            share.right += group.right
    return Accuracy(
        overall=overall.share,
        known=overall.known,
        by_kind={name: share.right / share.known for name, share in sorted(kinds.items())},
        by_tier={name: share.right / share.known for name, share in sorted(tiers.items())},
    )


def _lanes(tries: Sequence[Any], catalog: Catalog) -> dict[str, LaneUse]:
    by_lane: dict[str, list[Any]] = defaultdict(list)
    for group in tries:
        by_lane[group.lane].append(group)
    return {lane: _lane_use(lane, groups, catalog) for lane, groups in sorted(by_lane.items())}


def _lane_use(lane: str, groups: Sequence[Any], catalog: Catalog) -> LaneUse:
    known = catalog.lanes.get(lane)
    judged, passed = sum(g.judged for g in groups), sum(g.passed for g in groups)
    return LaneUse(
        tier=known.tier if known else "unknown",
        model=known.model if known else "unknown",
        attempts=sum(g.number for g in groups),
        failed=sum(g.number for g in groups if g.outcome != ANSWERED),
        passed=passed,
        pass_rate=passed / judged if judged else None,
        tokens_in=sum(int(g.tokens_in) for g in groups),
        tokens_cached=sum(int(g.tokens_cached) for g in groups),
        tokens_out=sum(int(g.tokens_out) for g in groups),
        cost_usd=dollars(sum(int(g.cost_micros) for g in groups)),
        unknown_charge_usd=dollars(_estimated([g for g in groups if g.outcome in NOT_KNOWN])),
    )


def _all_cloud_micros(connection: Connection, run_id: str, catalog: Catalog) -> int | None:
    """What the same questions and answers would have cost on the reference model alone; critics,
    votes and classifications are asked because there are tiers."""
    if catalog.reference_model is None:
        return None
    price = catalog.models[catalog.reference_model].price
    total = 0
    for row in run_sums.last_tokens(connection, run_id):
        total += row.number * price.micros(row.tokens_in, row.tokens_out)
    return total


def _seconds(groups: Sequence[Any]) -> float:
    ends = [g.last for g in groups if g.last is not None]
    return (max(ends) - min(g.first for g in groups)) / SECOND if ends else 0.0


def _latency(connection: Connection, run_id: str) -> Latency:
    return Latency(
        waiting=_quantiles(connection, run_id, "waiting_us"),
        inference=_quantiles(connection, run_id, "inference_us"),
    )


def _quantiles(connection: Connection, run_id: str, name: str) -> Quantiles:
    found = run_sums.quantiles(connection, run_id, name, (50, 95)).get("", {})
    return Quantiles(p50=found.get(50), p95=found.get(95))
