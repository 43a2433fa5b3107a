"""Every metric that Uptier exports: its name, kind, labels and help, in the order of the page.

Units are Prometheus's base units (seconds, bytes, dollars). Labels are closed sets or names that
an operator gave (lanes, kinds of the profile, providers, workers): never ids, never texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from routing.decision import Status

MICRO = 1_000_000
BUCKETS_S = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
)  # fmt: skip
"""Upper bounds of all histograms: from an answer of the cache to a queue behind a dead lane."""
OTHER_KIND = "other"
"""What kinds are called that the profile does not name: a client may invent any number."""
NO_LANE = "none"
"""The lane of what no model answered."""
OUTCOMES = ("answered", "failed", "unknown_charge")
UNANSWERED = (Status.DEAD.value, Status.FALLBACK.value, Status.EXPIRED.value)
"""Ends that nobody wants, of every kind."""


class MetricKind(StrEnum):
    """What Prometheus makes of the values."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """A metric as it is declared; ``scale`` is how many of the ledger's units make one of it."""

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    help: str
    scale: int = 1

    @property
    def exposed(self) -> str:
        """Its name on the page: counters end with ``_total``."""
        return f"{self.name}_total" if self.kind is MetricKind.COUNTER else self.name


def _counter(name: str, labels: str, text: str, scale: int = 1) -> Metric:
    return Metric(f"uptier_{name}", MetricKind.COUNTER, tuple(labels.split()), text, scale)


def _gauge(name: str, labels: str, text: str, scale: int = 1) -> Metric:
    return Metric(f"uptier_{name}", MetricKind.GAUGE, tuple(labels.split()), text, scale)


def _histogram(name: str, labels: str, text: str) -> Metric:
    return Metric(f"uptier_{name}", MetricKind.HISTOGRAM, tuple(labels.split()), text, MICRO)


# Counted in the transaction that changes a decision; see tally.py.
SUBMITTED = _counter("decisions_submitted", "kind lane", "Decisions written, by their first lane.")
SETTLED = _counter(
    "decisions_settled",
    "kind lane status",
    "Decisions that ended, by the lane whose answer it is and by status.",
)
DECISION_SECONDS = _histogram(
    "decision_seconds", "lane", "From submission to settlement, by the lane whose answer it is."
)
WAITING_SECONDS = _histogram(
    "waiting_seconds", "lane", "From being queued on a lane to the beginning of an attempt there."
)
INFERENCE_SECONDS = _histogram("inference_seconds", "lane", "What a model took for an attempt.")
ATTEMPTS = _counter(
    "attempts",
    "lane outcome",
    "Calls of models that ended: answered, failed, late or unknown_charge.",
)
CHECKS = _counter(
    "checks", "kind lane verdict", "Answers that the quality check concluded on: passed or failed."
)
ESCALATIONS = _counter("escalations", "lane to_lane", "Decisions that went on to a dearer lane.")
INPUT_TOKENS = _counter("input_tokens", "lane", "Prompt tokens of attempts, shared ones included.")
CACHED_TOKENS = _counter(
    "cached_input_tokens",
    "lane",
    "Prompt tokens that need not be computed: a prefix shared or kept.",
)
OUTPUT_TOKENS = _counter("output_tokens", "lane", "Tokens that models wrote in attempts.")
COST = _counter("cost_dollars", "lane", "What attempts cost, as booked.", MICRO)
UNKNOWN_CHARGES = _gauge(
    "unknown_charges", "lane", "Calls of which nobody knows whether they were served and billed."
)
UNKNOWN_COST = _gauge(
    "unknown_charge_dollars",
    "lane",
    "The most that calls with an unknown charge can have cost.",
    MICRO,
)
CACHE_HITS = _counter(
    "cache_hits", "kind layer", "Decisions that an earlier answer served: exact, alike or degraded."
)
LEASE_EXPIRIES = _counter(
    "lease_expiries", "lane", "Times that a decision's lease ended without an outcome."
)
WORKER_STARTS = _counter("worker_starts", "lane", "Workers that announced themselves.")
WORKER_DEATHS = _counter(
    "worker_deaths", "lane", "Workers in whose place another started though they had not stopped."
)

# Read from what is open at the moment of a scrape; see standing.py.
OPEN = _gauge(
    "open_decisions",
    "lane state",
    "Decisions not settled: waiting for a worker, delayed (backing off, or for a slot of a "
    "rate limit), running, or answered (waiting for the quality check).",
)
OLDEST = _gauge(
    "oldest_waiting_seconds",
    "lane",
    "How long the decision has waited that has waited longest; 0 where none does.",
)
LOST = _gauge(
    "expired_leases", "lane", "Decisions whose lease has ended and that nobody has taken up again."
)
OUTBOX = _gauge("outbox_messages", "", "Messages written that have not reached the broker.")
OUTBOX_LAG = _gauge("outbox_lag_seconds", "", "Age of the oldest of these; 0 where there is none.")
BUDGET_LIMIT = _gauge("budget_limit_dollars", "scope", "What a budget may spend.", MICRO)
BUDGET_SPENT = _gauge("budget_spent_dollars", "scope", "What it has spent.", MICRO)
BUDGET_RESERVED = _gauge(
    "budget_reserved_dollars", "scope", "What calls in flight may cost.", MICRO
)
BUDGET_LEFT = _gauge("budget_left_dollars", "scope", "Its limit less both.", MICRO)
LANE_STATE = _gauge(
    "lane_state",
    "lane state",
    "1 for the state that a lane is in (serving, down, draining, drained, lent).",
)
RESTARTS = _gauge(
    "supervised_restarts",
    "worker lane",
    "How often supervisors have started a process again since they began; the broker has no lane.",
)
BREAKER = _gauge(
    "breaker_state",
    "provider state",
    "1 for the state that a provider's breaker is in (closed, open, half-open).",
)
FAILURES = _gauge("provider_failures", "provider", "Outages of a provider in a row.")
STEWARD = _gauge("steward_up", "", "1 while some worker holds the steward's office.")
CACHE_ENTRIES = _gauge("cache_entries", "", "Answers that the cache keeps.")

# Told by workers with their sign of life; see fleet.py.
WORKER_UP = _gauge(
    "worker_up", "worker lane host", "1 while a worker serves, 0 once it is not heard of any more."
)
WORKERS_READY = _gauge("workers_ready", "lane", "Workers that serve a lane now.")
SLOTS = _gauge("engine_slots", "worker lane host", "Requests that an engine works on at once.")
RUNNING = _gauge("engine_running", "worker lane host", "Requests that it works on.")
QUEUED = _gauge("engine_waiting", "worker lane host", "Requests that wait inside it for a slot.")
JOBS = _counter("engine_requests", "worker lane host", "Requests that an engine was given.")
PASSES = _counter("engine_passes", "worker lane host", "Forward passes.")
BUSY = _counter("engine_busy_seconds", "worker lane host", "Time in forward passes.")
COMPUTED = _counter(
    "engine_computed_tokens", "worker lane host", "Tokens computed, of prompts and answers."
)
PROMPT_TOKENS = _counter("engine_prompt_tokens", "worker lane host", "Tokens of prompts.")
PREFIX_HITS = _counter(
    "engine_prefix_hit_tokens", "worker lane host", "Tokens of prompts that a shared prefix spared."
)
GENERATED = _counter("engine_generated_tokens", "worker lane host", "Tokens written.")
CONTEXTS_LOST = _counter(
    "engine_contexts_lost", "worker lane host", "Contexts that broke and were made anew."
)
ADAPTER_SWITCHES = _counter(
    "engine_adapter_switches", "worker lane host", "Times that another adapter was put in force."
)
ADAPTERS = _gauge("engine_adapters_loaded", "worker lane host", "Adapters in memory.")
VRAM_USED = _gauge(
    "vram_used_bytes",
    "worker lane host gpu",
    "Memory in use, by whomever, on the card that a worker is pinned to.",
)
VRAM_TOTAL = _gauge("vram_total_bytes", "worker lane host gpu", "All memory of that card.")

# Of the exporter itself.
LEDGER_UP = _gauge("ledger_up", "", "1 if the ledger answered; at 0 most of the page is missing.")
COLLECT_SECONDS = _gauge("collect_seconds", "", "What reading the ledger for this page took.")
BUILD = _gauge("build_info", "version profile", "Always 1; its labels tell what runs.")

COUNTED = (
    SUBMITTED,
    SETTLED,
    DECISION_SECONDS,
    WAITING_SECONDS,
    INFERENCE_SECONDS,
    ATTEMPTS,
    CHECKS,
    ESCALATIONS,
    INPUT_TOKENS,
    CACHED_TOKENS,
    OUTPUT_TOKENS,
    COST,
    UNKNOWN_CHARGES,
    UNKNOWN_COST,
    CACHE_HITS,
    LEASE_EXPIRIES,
    WORKER_STARTS,
    WORKER_DEATHS,
)
STANDING = (
    OPEN,
    OLDEST,
    LOST,
    OUTBOX,
    OUTBOX_LAG,
    BUDGET_LIMIT,
    BUDGET_SPENT,
    BUDGET_RESERVED,
    BUDGET_LEFT,
    LANE_STATE,
    RESTARTS,
    BREAKER,
    FAILURES,
    STEWARD,
    CACHE_ENTRIES,
)
FIGURES = {
    "slots": SLOTS,
    "running": RUNNING,
    "waiting": QUEUED,
    "jobs": JOBS,
    "passes": PASSES,
    "busy_s": BUSY,
    "tokens_computed": COMPUTED,
    "tokens_in": PROMPT_TOKENS,
    "tokens_cached": PREFIX_HITS,
    "tokens_out": GENERATED,
    "contexts_lost": CONTEXTS_LOST,
    "adapter_switches": ADAPTER_SWITCHES,
    "adapters_loaded": ADAPTERS,
}
"""The metrics of an engine by what its figures are called; see ``Engine.figures``."""
TOLD = (WORKER_UP, WORKERS_READY, *FIGURES.values(), VRAM_USED, VRAM_TOTAL)
OWN = (LEDGER_UP, COLLECT_SECONDS, BUILD)
ALL = (*COUNTED, *STANDING, *TOLD, *OWN)
BY_NAME = {metric.name: metric for metric in ALL}
