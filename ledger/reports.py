"""What happened in a run, in figures: the report that commands print."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, func, select

from config.catalog import Catalog
from config.settings import Settings
from ledger import certificates
from ledger.audit_use import AuditUse, audit_use
from ledger.budgets import BudgetUse, usage
from ledger.calls import INTENT, UNKNOWN
from ledger.certificates import CertificateState
from ledger.clock import SECOND, now
from ledger.database import ledger_place, open_ledger, reading
from ledger.money import dollars
from ledger.providers import ProviderState, states
from ledger.runs import RunInfo
from ledger.tables import TABLES
from routing.decision import State, Status

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
PREFIXES = TABLES.tables["prefix"]

NOT_KNOWN = (INTENT, UNKNOWN)
"""Outcomes of calls that may have been served; an intent is one that is under way."""
CHARS_PER_TOKEN = 4
"""For answers from the cache, whose tokens nobody counted."""


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
    ledger: str


def report(engine: Engine, settings: Settings, catalog: Catalog, run: RunInfo) -> Report:
    """The report of one run. ``catalog`` is the run's whole profile, absent lanes included."""
    with reading(engine) as connection:
        rows = connection.execute(_decisions_query(run.id)).all()
        tries = connection.execute(_attempts_query(run.id)).all()
        unsettled = _unsettled(connection, run.id)
        audits = audit_use(connection, run.id)
    counts = _counts(rows, catalog)
    total, escalated = counts.total, sum(1 for r in rows if r.climbs)
    spent = sum(t.cost_micros for t in tries)
    unknown = [t.estimated_micros for t in tries if t.outcome in NOT_KNOWN]
    all_cloud = _all_cloud_micros(rows, tries, catalog)
    seconds = _seconds(rows)
    return Report(
        run=run.id, mode=run.mode, profile=run.profile, seed=run.seed, decisions=counts,
        escalated=escalated, escalation_rate=escalated / total if total else None, audits=audits,
        unsettled=unsettled, empty=_empty(rows), accuracy=_accuracy(rows, catalog),
        lanes=_lanes(tries, catalog),
        absent_tiers={lane.tier: lane.reason for lane in run.absent},
        tokens=_tokens(tries), cost_usd=dollars(spent),
        unknown_charge_usd=dollars(sum(unknown)), unknown_charges=len(unknown),
        budgets=usage(engine, run.id, catalog.cloud_budget.alert_share, now()),
        all_cloud_cost_usd=None if all_cloud is None else dollars(all_cloud),
        all_cloud_model=catalog.reference_model,
        savings_usd=None if all_cloud is None else dollars(all_cloud - spent),
        savings_share=1 - spent / all_cloud if all_cloud else None,
        seconds=seconds, decisions_per_second=total / seconds if seconds else None,
        latency_ms=_latency(tries),
        cache_share=counts.by_status.get(Status.CACHED.value, 0) / total if total else 0.0,
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
        SQLAlchemyError: it does not answer.
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
    finally:
        engine.dispose()


def _decisions_query(run_id: str) -> Any:
    columns = DECISIONS.c
    size = func.length(columns.prompt) + func.coalesce(func.length(PREFIXES.c.text), 0)
    return (
        select(
            columns.id, columns.kind, columns.lane, columns.state, columns.status, columns.answer,
            columns.answer_lane, columns.climbs, columns.expected, columns.created_at,
            columns.settled_at, size.label("chars"),
        )
        .outerjoin(PREFIXES, PREFIXES.c.id == columns.prefix_id)
        .where(columns.run_id == run_id, columns.propensity.is_(None))
    )  # fmt: skip


def _attempts_query(run_id: str) -> Any:
    columns = ATTEMPTS.c
    return (
        select(
            columns.decision_id, columns.lane, columns.outcome, columns.passed, columns.tokens_in,
            columns.tokens_out, columns.tokens_cached, columns.cost_micros,
            columns.estimated_micros, columns.waiting_us, columns.inference_us,
        )
        .join(DECISIONS, DECISIONS.c.id == columns.decision_id)
        .where(DECISIONS.c.run_id == run_id)
    )  # fmt: skip


def _unsettled(connection: Connection, run_id: str) -> int:
    query = select(func.count()).where(
        DECISIONS.c.run_id == run_id,
        DECISIONS.c.state != State.SETTLED.value,
        DECISIONS.c.propensity.is_(None),
    )
    return connection.execute(query).scalar_one()


def _empty(rows: Sequence[Any]) -> int:
    settled = [r for r in rows if r.state == State.SETTLED.value]
    # Of what was cancelled nobody wanted an answer any more.
    return sum(1 for r in settled if not r.answer and r.status != Status.CANCELLED.value)


def _tokens(tries: Sequence[Any]) -> dict[str, int]:
    return {
        "input": sum(t.tokens_in for t in tries),
        "cached": sum(t.tokens_cached for t in tries),
        "output": sum(t.tokens_out for t in tries),
    }


def _counts(rows: Sequence[Any], catalog: Catalog) -> Counts:
    tiers = Counter(dict.fromkeys(_tiers_in_order(catalog), 0))
    tiers.update(_tier(r, catalog) for r in rows)
    return Counts(
        total=len(rows),
        by_status=dict(Counter(r.status or r.state for r in rows).most_common()),
        by_tier=dict(tiers),
        by_kind=dict(Counter(r.kind for r in rows).most_common()),
    )


def _tiers_in_order(catalog: Catalog) -> list[str]:
    return sorted(catalog.tiers, key=lambda name: catalog.tiers[name].rank)


def _tier(row: Any, catalog: Catalog) -> str:
    """The tier whose answer it is; a fallback came from none."""
    lane = catalog.lanes.get(row.answer_lane or "")
    return lane.tier if lane is not None else "none"


def _accuracy(rows: Sequence[Any], catalog: Catalog) -> Accuracy:
    overall = Share()
    kinds: dict[str, Share] = defaultdict(Share)
    tiers: dict[str, Share] = defaultdict(Share)
    for row in rows:
        if row.expected is None or row.state != State.SETTLED.value:
            continue
        for share in (overall, kinds[row.kind], tiers[_tier(row, catalog)]):
            share.known += 1
            share.right += row.answer == row.expected
    return Accuracy(
        overall=overall.share,
        known=overall.known,
        by_kind={name: share.right / share.known for name, share in sorted(kinds.items())},
        by_tier={name: share.right / share.known for name, share in sorted(tiers.items())},
    )


def _lanes(tries: Sequence[Any], catalog: Catalog) -> dict[str, LaneUse]:
    by_lane: dict[str, list[Any]] = defaultdict(list)
    for row in tries:
        by_lane[row.lane].append(row)
    return {lane: _lane_use(lane, rows, catalog) for lane, rows in sorted(by_lane.items())}


def _lane_use(lane: str, rows: Sequence[Any], catalog: Catalog) -> LaneUse:
    known = catalog.lanes.get(lane)
    judged = [r for r in rows if r.passed is not None]
    passed = sum(1 for r in judged if r.passed)
    unknown = [r.estimated_micros for r in rows if r.outcome in NOT_KNOWN]
    return LaneUse(
        tier=known.tier if known else "unknown",
        model=known.model if known else "unknown",
        attempts=len(rows),
        failed=sum(1 for r in rows if r.outcome != "answered"),
        passed=passed,
        pass_rate=passed / len(judged) if judged else None,
        tokens_in=sum(r.tokens_in for r in rows),
        tokens_cached=sum(r.tokens_cached for r in rows),
        tokens_out=sum(r.tokens_out for r in rows),
        cost_usd=dollars(sum(r.cost_micros for r in rows)),
        unknown_charge_usd=dollars(sum(unknown)),
    )


def _all_cloud_micros(rows: Sequence[Any], tries: Iterable[Any], catalog: Catalog) -> int | None:
    """What the same questions and answers would have cost on the reference model alone."""
    if catalog.reference_model is None:
        return None
    price = catalog.models[catalog.reference_model].price
    tokens: dict[str, tuple[int, int]] = {}
    for row in tries:
        if row.outcome == "answered":
            tokens[row.decision_id] = (row.tokens_in, row.tokens_out)
    total = 0
    for row in rows:
        guess = (row.chars // CHARS_PER_TOKEN, len(row.answer or "") // CHARS_PER_TOKEN + 1)
        total += price.micros(*tokens.get(row.id, guess))
    return total


def _seconds(rows: Sequence[Any]) -> float:
    ends = [r.settled_at for r in rows if r.settled_at is not None]
    return (max(ends) - min(r.created_at for r in rows)) / SECOND if ends else 0.0


def _latency(tries: Sequence[Any]) -> Latency:
    return Latency(
        waiting=_quantiles([t.waiting_us for t in tries]),
        inference=_quantiles([t.inference_us for t in tries]),
    )


def _quantiles(micros: list[int]) -> Quantiles:
    ordered = sorted(micros)
    return Quantiles(p50=_quantile(ordered, 0.5), p95=_quantile(ordered, 0.95))


def _quantile(ordered: Sequence[int], share: float) -> float | None:
    """The nearest-rank quantile, in milliseconds."""
    if not ordered:
        return None
    rank = min(len(ordered) - 1, int(share * len(ordered)))
    return ordered[rank] / 1000
