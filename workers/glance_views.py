"""What ``uptier top`` shows of one moment, as values."""

from __future__ import annotations

from pydantic import BaseModel

from ledger.budgets import BudgetUse
from ledger.providers import ProviderState


class QueueView(BaseModel):
    """A queue: its messages at the broker, and the decisions behind them in the ledger."""

    name: str
    messages: int | None
    """``None`` where the broker does not answer."""
    waiting: int
    running: int
    oldest_s: float | None
    capped: bool = False
    """Whether more decisions are open than were counted."""


class LaneView(BaseModel):
    """A lane and what it did within the last minute."""

    name: str
    tier: str
    model: str
    state: str
    reason: str = ""
    workers: int = 0
    answers_per_s: float = 0.0
    failed: int = 0
    accepted_share: float | None = None
    tokens_per_s: float = 0.0
    per_hour_usd: float = 0.0


class WorkerView(BaseModel):
    """A worker process. ``restarts`` and ``placement`` are known of this machine's only."""

    name: str
    lane: str
    host: str
    pid: int | None
    state: str
    placement: str
    uptime_s: float | None
    heartbeat_s: float | None
    """Seconds since it was heard of."""
    restarts: int | None
    message: str = ""
    figures: dict[str, float] = {}


class Rates(BaseModel):
    """What went on of late; shares are between 0 and 1."""

    settled_per_s: float | None
    """``None`` at the first look, which has nothing to compare with."""
    settled_over_s: float
    accepted_share: float | None
    climbed_share: float | None


class Money(BaseModel):
    """Dollars of paid calls today (UTC), and the pace of the last quarter of an hour."""

    today_usd: float
    per_hour_usd: float
    unknown_charges: int
    unknown_usd: float
    budgets: list[BudgetUse]


class Glance(BaseModel):
    """One look at a stack."""

    at: int
    """Microseconds since 1970."""
    profile: str
    stack: str
    broker: str | None
    ledger: str
    flower: str | None
    problems: list[str]
    decisions: dict[str, int]
    queues: list[QueueView]
    lanes: list[LaneView]
    workers: list[WorkerView]
    rates: Rates
    money: Money
    providers: list[ProviderState]
