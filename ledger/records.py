"""The values that go into the ledger and come out of it, and how they map to rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

from ledger.clock import SECOND
from ledger.outbox import new_id
from routing.decision import Decision, Output, Plan, Preferences, Settled, Signals, State, Status

_OUTPUT: TypeAdapter[Output] = TypeAdapter(Output)


@dataclass(frozen=True)
class Planned:
    """A decision with its plan, ready to be written."""

    decision: Decision
    plan: Plan
    parent_id: str | None = None
    propensity: float | None = None
    """Of an audit: the probability with which its parent was chosen."""


@dataclass(frozen=True)
class Claimed:
    """A decision that this worker holds until its lease ends."""

    id: str
    run_id: str
    decision: Decision
    lane: str
    tries: int
    deliveries: int
    queued_at: int
    plan: str
    """Its plan as JSON; see :func:`plan_of`."""
    hop: int
    parent_id: str | None = None
    """The decision that asks this one about its answer."""
    audits: bool = False
    """Whether it only checks another decision's answer."""
    deadline_at: int | None = None
    """When it expires, in microseconds since 1970."""


class StoredVerdict(BaseModel):
    """What the quality check said of an attempt, as its row keeps it."""

    format: float
    completeness: float
    coherence: float
    critique: float | None = None
    score: float
    passed: bool
    usable: bool
    answer: str
    p_answer: float | None = None
    vetoes: tuple[str, ...] = ()
    issues: tuple[str, ...] = ()
    agreement: dict[str, bool] = {}
    """Whether other lanes said the same, by their names: those tried before, and a panel's."""
    sound: bool | None = None
    """Whether it passed the rubric; absent in verdicts from before certificates."""
    asks: str | None = None
    """The lane that was asked next because the policy in force held the answer back."""

    @property
    def is_sound(self) -> bool:
        """Whether it passed the rubric, be it accepted or not."""
        return self.passed if self.sound is None else self.sound


@dataclass(frozen=True)
class Tried:
    """What one call gave, as the ledger keeps it; ``again_at`` set means the same lane later."""

    id: str
    model: str
    fingerprint: str
    raw: str = ""
    label: str | None = None
    probabilities: tuple[float, ...] | None = None
    calibrated: tuple[float, ...] | None = None
    """``probabilities`` corrected, where a calibration applies; ``label`` is the best of them."""
    mass: float | None = None
    truncated: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    cost_micros: int = 0
    waiting_us: int = 0
    inference_us: int = 0
    error: str = ""
    again_at: int | None = None
    unknown_charge_micros: int | None = None
    attempt_id: str | None = None
    """The intent that was written before the call, where it is paid."""
    climb_to: tuple[int, str] | None = None
    """The next hop and its lane, where one may be taken after a failure."""
    lower: Plan | None = None
    """Where it goes if this failed, no lane is left and no answer is there; see ``Refusal``."""

    def __post_init__(self) -> None:
        """Make what a model or a provider said such that every database takes it."""
        for name in ("raw", "error", "label"):
            text = getattr(self, name)
            if text:
                object.__setattr__(self, name, storable(text))


@dataclass(frozen=True)
class Hit:
    """A decision answered from the cache."""

    id: str
    answer: str
    lane: str
    p_answer: float | None
    reason: str = "answered before"
    status: Status = Status.CACHED
    alike: bool = False
    """Whether it answered another question, one alike."""

    @property
    def layer(self) -> str:
        """Which of the cache's layers it came from."""
        if self.status is Status.DEGRADED:
            return "degraded"
        return "alike" if self.alike else "exact"


@dataclass(frozen=True)
class Ended:
    """A decision that settled, for logs and traces; times in microseconds since 1970."""

    id: str
    run_id: str
    kind: str
    status: str
    lane: str | None
    climbs: int
    cost_micros: int
    created_at: int
    settled_at: int
    parent_id: str | None


def decision_row(run_id: str, planned: Planned, now: int) -> dict[str, Any]:
    """The row of a decision that has just been submitted."""
    decision, plan = planned.decision, planned.plan
    deadline = decision.deadline_s
    return {
        "id": new_id(),
        "run_id": run_id,
        "key": decision.key,
        "agent_id": decision.agent_id,
        "day": decision.day,
        **decision_asked(decision),
        "signals": decision.signals.model_dump_json(exclude_defaults=True),
        "preferences": decision.preferences.model_dump_json(exclude_defaults=True),
        "seed": decision.seed,
        "expected": decision.expected,
        "fallback": decision.fallback,
        "plan": plan.model_dump_json(),
        "lane": plan.hops[0].lane,
        "state": State.QUEUED.value,
        "parent_id": planned.parent_id,
        "propensity": planned.propensity,
        "published_at": now,
        "deadline_at": None if deadline is None else now + int(deadline * SECOND),
        "created_at": now,
        "queued_at": now,
    }


def decision_asked(decision: Decision) -> dict[str, Any]:
    """Of the row of a decision what makes its question."""
    return {
        "kind": decision.kind,
        "prefix_id": prefix_id(decision.system) if decision.system else None,
        "prompt": decision.prompt,
        "template": decision.template,
        "output": decision.output.model_dump_json(exclude_none=True),
    }


def storable(text: str) -> str:
    """Text that every database takes: no lone surrogates and no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def prefix_id(text: str) -> str:
    """The name of a prompt's constant part: the sha256 of it."""
    return hashlib.sha256(text.encode()).hexdigest()


def claimed(row: Any, systems: dict[str, str]) -> Claimed:
    """A claimed row as a value."""
    return Claimed(
        id=row.id,
        run_id=row.run_id,
        decision=asked(row, systems.get(row.prefix_id, "")),
        lane=row.lane,
        tries=row.tries,
        deliveries=row.deliveries,
        queued_at=row.queued_at,
        plan=row.plan,
        hop=row.hop,
        parent_id=row.parent_id,
        audits=row.propensity is not None,
        deadline_at=row.deadline_at,
    )


def plan_of(claimed: Claimed) -> Plan:
    """The plan of a claimed decision; few need it, so it is read only then."""
    return Plan.model_validate_json(claimed.plan)


def asked(row: Any, system: str) -> Decision:
    """The decision as it was submitted; the deadline stays with the ledger."""
    return Decision.model_construct(
        kind=row.kind,
        prompt=row.prompt,
        output=output_of(row.output),
        key=row.key,
        system=system,
        template=row.template,
        agent_id=row.agent_id,
        day=row.day,
        signals=_signals(row.signals),
        preferences=_preferences(row.preferences),
        seed=row.seed,
        fallback=row.fallback,
        expected=row.expected,
    )


@lru_cache(maxsize=512)
def output_of(text: str) -> Output:
    """The output that a row's JSON describes."""
    return _OUTPUT.validate_json(text)


@lru_cache(maxsize=512)
def _signals(text: str) -> Signals:
    return Signals.model_validate_json(text)


@lru_cache(maxsize=512)
def _preferences(text: str) -> Preferences:
    return Preferences.model_validate_json(text)


def attempt_row(decision: Any, tried: Tried, now: int) -> dict[str, Any]:
    """The row of an attempt on a decision that stands at ``decision.lane``."""
    return {
        "id": new_id(),
        "decision_id": decision.id,
        "lane": decision.lane,
        "number": decision.tries + 1,
        "created_at": now,
        **attempt_values(tried),
    }


def attempt_values(tried: Tried) -> dict[str, Any]:
    """What one call gave, as columns of its attempt."""
    outcome = "failed" if tried.error else "answered"
    if tried.unknown_charge_micros is not None:
        outcome = "unknown_charge"
    return {
        "model": tried.model,
        "fingerprint": tried.fingerprint,
        "outcome": outcome,
        "raw": tried.raw,
        "label": tried.label,
        "probabilities": _digits(tried.probabilities),
        "calibrated": _digits(tried.calibrated),
        "mass": tried.mass,
        "truncated": tried.truncated,
        "tokens_in": tried.tokens_in,
        "tokens_out": tried.tokens_out,
        "tokens_cached": tried.tokens_cached,
        "cost_micros": tried.cost_micros,
        "estimated_micros": tried.unknown_charge_micros or 0,
        "waiting_us": tried.waiting_us,
        "inference_us": tried.inference_us,
        "error": tried.error,
    }


def _digits(probabilities: tuple[float, ...] | None) -> str | None:
    return None if probabilities is None else json.dumps([round(p, 6) for p in probabilities])


def settled(row: Any) -> Settled:
    """A settled row as what its producer gets."""
    return Settled(
        id=row.id,
        key=row.key,
        kind=row.kind,
        status=Status(row.status),
        answer=row.answer or "",
        lane=row.answer_lane,
        reason=row.reason,
        cost_micros=row.cost_micros,
        climbs=row.climbs,
        p_answer=row.p_answer,
    )


def ended(row: Any, status: Status, lane: str | None, now: int) -> Ended:
    """What is told of a decision that has just settled; ``row`` is as it was before."""
    return Ended(row.id, row.run_id, row.kind, status.value, lane, row.climbs, row.cost_micros,
                 row.created_at, now, row.parent_id)  # fmt: skip
