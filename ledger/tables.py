"""The ledger's tables. Times are microseconds since 1970 (UTC), money is micro-dollars."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel


class Run(SQLModel, table=True):
    """What decisions belong to: a simulation, a batch, a single question."""

    id: str = Field(primary_key=True, max_length=40)
    name: str = Field(default="", max_length=200, index=True)
    mode: str = Field(max_length=32)
    profile: str = Field(max_length=64)
    seed: int = Field(default=0, sa_type=BigInteger)
    config: str = Field(default="{}", sa_type=Text)
    absent: str = Field(default="[]", sa_type=Text)
    created_at: int = Field(sa_type=BigInteger)
    finished_at: int | None = Field(default=None, sa_type=BigInteger)


class Prefix(SQLModel, table=True):
    """The constant part of prompts, kept once; ``id`` is the sha256 of the text."""

    id: str = Field(primary_key=True, max_length=64)
    text: str = Field(sa_type=Text)


class Decision(SQLModel, table=True):
    """A decision from submission to settlement; its place in its life is ``state``."""

    __table_args__ = (
        UniqueConstraint("run_id", "key", name="uq_decision_run_key"),
        # Depth and age of every lane are read from it alone: decisions are long.
        Index("ix_decision_state_due", "state", "not_before", "lane", "queued_at"),
        Index("ix_decision_run_state", "run_id", "state"),
    )

    id: str = Field(primary_key=True, max_length=32)
    run_id: str = Field(foreign_key="run.id", max_length=40)
    key: str = Field(max_length=200)
    kind: str = Field(max_length=64)
    agent_id: str = Field(default="", max_length=200)
    day: int | None = None
    prefix_id: str | None = Field(default=None, foreign_key="prefix.id", max_length=64)
    prompt: str = Field(sa_type=Text)
    template: str = Field(default="", max_length=100)
    output: str = Field(sa_type=Text)
    signals: str = Field(default="{}", sa_type=Text)
    preferences: str = Field(default="{}", sa_type=Text)
    seed: int = Field(default=0, sa_type=BigInteger)
    expected: str | None = Field(default=None, sa_type=Text)
    fallback: str | None = Field(default=None, sa_type=Text)
    plan: str = Field(sa_type=Text)
    hop: int = 0
    lane: str = Field(max_length=64)
    state: str = Field(max_length=16)
    status: str | None = Field(default=None, max_length=16)
    answer: str | None = Field(default=None, sa_type=Text)
    answer_lane: str | None = Field(default=None, max_length=64)
    reason: str = Field(default="", sa_type=Text)
    p_answer: float | None = None
    climbs: int = 0
    tries: int = 0
    deliveries: int = 0
    held_status: str | None = Field(default=None, max_length=16)
    """The status it will settle with because a dearer lane was refused, and why it was."""
    held_reason: str = Field(default="", sa_type=Text)
    slot_at: int | None = Field(default=None, sa_type=BigInteger)
    """When the provider's rate limit has a place for it."""
    cost_micros: int = Field(default=0, sa_type=BigInteger)
    parent_id: str | None = Field(default=None, max_length=32, index=True)
    critic_id: str | None = Field(default=None, max_length=32)
    propensity: float | None = None
    """Of an audit: the probability with which its parent was chosen. All others have none."""
    lease_token: str | None = Field(default=None, max_length=32)
    lease_until: int | None = Field(default=None, sa_type=BigInteger)
    not_before: int = Field(default=0, sa_type=BigInteger)
    published_at: int = Field(default=0, sa_type=BigInteger)
    deadline_at: int | None = Field(default=None, sa_type=BigInteger)
    created_at: int = Field(sa_type=BigInteger)
    queued_at: int = Field(sa_type=BigInteger)
    settled_at: int | None = Field(default=None, sa_type=BigInteger)


class Attempt(SQLModel, table=True):
    """One call of one model for one decision; ``number`` counts from 1 within a lane."""

    __table_args__ = (
        UniqueConstraint("decision_id", "lane", "number", name="uq_attempt_decision_lane_number"),
        Index("ix_attempt_outcome", "outcome", sqlite_where=text("outcome = 'intent'"),
              postgresql_where=text("outcome = 'intent'")),
    )  # fmt: skip

    id: str = Field(primary_key=True, max_length=32)
    decision_id: str = Field(foreign_key="decision.id", max_length=32)
    lane: str = Field(max_length=64)
    number: int
    model: str = Field(max_length=64)
    fingerprint: str = Field(default="", max_length=100)
    outcome: str = Field(max_length=16)
    token: str | None = Field(default=None, max_length=32)
    """The lease under which a paid call was begun."""
    scopes: str = Field(default="[]", sa_type=Text)
    """The budgets that its estimate is reserved in."""
    raw: str = Field(default="", sa_type=Text)
    label: str | None = Field(default=None, sa_type=Text)
    probabilities: str | None = Field(default=None, sa_type=Text)
    """The model's own, one a label of the decision's output, as JSON."""
    calibrated: str | None = Field(default=None, sa_type=Text)
    """The same after the correction that was in force; ``label`` is the best of these."""
    mass: float | None = None
    truncated: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    cost_micros: int = Field(default=0, sa_type=BigInteger)
    estimated_micros: int = Field(default=0, sa_type=BigInteger)
    waiting_us: int = Field(default=0, sa_type=BigInteger)
    inference_us: int = Field(default=0, sa_type=BigInteger)
    error: str = Field(default="", sa_type=Text)
    verdict: str | None = Field(default=None, sa_type=Text)
    score: float | None = None
    passed: bool | None = None
    created_at: int = Field(sa_type=BigInteger)


class BatchLine(SQLModel, table=True):
    """A line of a batch's file: the decision that it became, or why it became none.

    ``number`` counts from 1, ``url`` is the endpoint that it asks for (empty for a decision in
    Uptier's own form), ``error`` is OpenAI's error object as JSON.
    """

    __tablename__ = "batch_line"
    __table_args__ = (Index("ix_batch_line_custom_id", "run_id", "custom_id"),)

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=40)
    number: int = Field(primary_key=True)
    custom_id: str = Field(default="", max_length=200)
    url: str = Field(default="", max_length=64)
    model: str = Field(default="", max_length=200)
    """As the line names it."""
    decision_id: str | None = Field(default=None, foreign_key="decision.id", max_length=32)
    error: str | None = Field(default=None, sa_type=Text)


class Outbox(SQLModel, table=True):
    """A message that has to reach the broker; the row goes once it has."""

    id: str = Field(primary_key=True, max_length=32)
    task: str = Field(max_length=32)
    queue: str = Field(max_length=64)
    ids: str = Field(sa_type=Text)
    created_at: int = Field(sa_type=BigInteger, index=True)


class Budget(SQLModel, table=True):
    """What a scope may spend and has spent; ``reserved`` is promised to calls in flight."""

    scope: str = Field(primary_key=True, max_length=200)
    limit_micros: int | None = Field(default=None, sa_type=BigInteger)
    spent_micros: int = Field(default=0, sa_type=BigInteger)
    reserved_micros: int = Field(default=0, sa_type=BigInteger)
    limit_calls: int | None = None
    calls: int = 0


class CacheEntry(SQLModel, table=True):
    """An accepted answer that may serve an identical question again, or one alike; or one that a
    whole plan came to below the bar (``status``).

    ``space`` names what must be equal for a question to be alike, and ``vector`` is its prompt's
    direction (float16, length 1); both are absent where only the identical question counts.
    """

    __tablename__ = "cache_entry"

    key: str = Field(primary_key=True, max_length=64)
    kind: str = Field(default="", max_length=64)
    status: str = Field(default="accepted", max_length=16)
    answer: str = Field(sa_type=Text)
    lane: str = Field(max_length=64)
    p_answer: float | None = None
    hits: int = 0
    created_at: int = Field(sa_type=BigInteger)
    used_at: int = Field(sa_type=BigInteger, index=True)
    expires_at: int | None = Field(default=None, sa_type=BigInteger)
    space: str | None = Field(default=None, max_length=64, index=True)
    vector: bytes | None = None


class CacheAudit(SQLModel, table=True):
    """A decision that was answered for real though a cached answer to one alike was there."""

    __tablename__ = "cache_audit"
    __table_args__ = (Index("ix_cache_audit_kind", "kind", "created_at"),)

    decision_id: str = Field(primary_key=True, max_length=32)
    kind: str = Field(max_length=64)
    embedder: str = Field(max_length=32)
    similarity: float
    answer: str = Field(sa_type=Text)
    """What the cache would have said."""
    agreed: bool | None = None
    """Whether the real answer, once accepted, is the same."""
    created_at: int = Field(sa_type=BigInteger)


class Calibration(SQLModel, table=True):
    """How a model's label probabilities are corrected for one kind.

    ``bias`` is in nats by label, as it is subtracted; ``samples`` counts the labelled decisions
    that it was found and checked with. The newest row that fits is in force.
    """

    __table_args__ = (Index("ix_calibration_model", "model", "fingerprint"),)

    id: int | None = Field(default=None, sa_column=Column(Integer, primary_key=True))
    kind: str = Field(max_length=64)
    model: str = Field(max_length=64)
    fingerprint: str = Field(max_length=100)
    adapter: str = Field(default="", max_length=64)
    template: str = Field(default="", max_length=100)
    temperature: float = 1.0
    bias: str = Field(default="{}", sa_type=Text)
    samples: int = 0
    created_at: int = Field(sa_type=BigInteger)


class Label(SQLModel, table=True):
    """Whether an attempt's answer was right, and who says so.

    ``propensity`` is the probability with which it came to be labelled; where nobody knows it,
    as when a person picks what to look at, there is none.
    """

    __table_args__ = (UniqueConstraint("attempt_id", "source", name="uq_label_attempt_source"),)

    id: str = Field(primary_key=True, max_length=32)
    decision_id: str = Field(foreign_key="decision.id", max_length=32, index=True)
    attempt_id: str = Field(foreign_key="attempt.id", max_length=32)
    lane: str = Field(max_length=64)
    correct: bool
    source: str = Field(max_length=16)
    propensity: float | None = None
    created_at: int = Field(sa_type=BigInteger, index=True)


class Certificate(SQLModel, table=True):
    """The promise that few accepted answers of a kind on a lane are wrong; or why there is none.

    ``thresholds`` are probabilities by label as JSON, ``standing`` one of in_force, refused,
    replaced and lapsed, ``drift`` the state of the test on the stream of scores as JSON.
    """

    __table_args__ = (Index("ix_certificate_standing", "standing"),)

    id: int | None = Field(default=None, sa_column=Column(Integer, primary_key=True))
    kind: str = Field(max_length=64)
    lane: str = Field(max_length=64)
    model: str = Field(max_length=64)
    fingerprint: str = Field(max_length=100)
    adapter: str = Field(default="", max_length=64)
    template: str = Field(default="", max_length=100)
    alpha: float
    delta: float
    thresholds: str = Field(default="{}", sa_type=Text)
    n: int = 0
    errors: int = 0
    labels: int = 0
    standing: str = Field(max_length=16)
    reason: str = Field(default="", sa_type=Text)
    drift: str = Field(default="{}", sa_type=Text)
    seen: str = Field(default="", max_length=32)
    created_at: int = Field(sa_type=BigInteger)
    lapsed_at: int | None = Field(default=None, sa_type=BigInteger)


class Policy(SQLModel, table=True):
    """A learnt policy that was put in force, as JSON (routing/learnt.py), and what it rests on.

    ``served`` are the scopes that served when it was learnt (routing/certify.py), ``starts`` the
    lane that each kind begins on, ``standing`` one of in_force, replaced, lapsed and retired,
    ``drift`` the states of the tests on the streams of scores, by kind. All of these are JSON.
    """

    __table_args__ = (Index("ix_policy_standing", "standing"),)

    id: int | None = Field(default=None, sa_column=Column(Integer, primary_key=True))
    run_id: str = Field(max_length=40)
    target: float
    delta: float
    labels: int = 0
    document: str = Field(sa_type=Text)
    served: str = Field(sa_type=Text)
    starts: str = Field(sa_type=Text)
    standing: str = Field(max_length=16)
    reason: str = Field(default="", sa_type=Text)
    drift: str = Field(default="{}", sa_type=Text)
    seen: str = Field(default="", max_length=32)
    created_at: int = Field(sa_type=BigInteger)
    lapsed_at: int | None = Field(default=None, sa_type=BigInteger)


class LaneHistory(SQLModel, table=True):
    """How a lane fared with a kind of late: answers judged and good ones, and what they took.

    Good is what passed the check and was not found wrong afterwards. Micro-dollars and
    microseconds are sums over all that were tried.
    """

    __tablename__ = "lane_history"

    kind: str = Field(primary_key=True, max_length=64)
    lane: str = Field(primary_key=True, max_length=64)
    tried: int = 0
    good: int = 0
    cost_micros: int = Field(default=0, sa_type=BigInteger)
    inference_us: int = Field(default=0, sa_type=BigInteger)
    updated_at: int = Field(sa_type=BigInteger)


class SwarmAction(SQLModel, table=True):
    """What a daemon did in one iteration; ``intent`` is written before it is done.

    ``digest`` is the sha256 of action and arguments, ``evidence`` what tells afterwards whether a
    change was made, as JSON; ``note`` is its place in the history that prompts show.
    """

    __tablename__ = "swarm_action"
    __table_args__ = (
        UniqueConstraint("run_id", "iteration", name="uq_swarm_action_run_iteration"),
    )

    id: str = Field(primary_key=True, max_length=32)
    run_id: str = Field(foreign_key="run.id", max_length=40)
    iteration: int
    action: str = Field(max_length=64)
    arguments: str = Field(default="{}", sa_type=Text)
    digest: str = Field(default="", max_length=64)
    complexity: str = Field(max_length=16)
    effect: str = Field(max_length=16)
    state: str = Field(max_length=16)
    ruling: str = Field(max_length=16)
    output: str = Field(default="", sa_type=Text)
    note: str = Field(default="", sa_type=Text)
    evidence: str = Field(default="{}", sa_type=Text)
    approval_id: str | None = Field(default=None, max_length=32)
    created_at: int = Field(sa_type=BigInteger)
    finished_at: int | None = Field(default=None, sa_type=BigInteger)


class Approval(SQLModel, table=True):
    """An action that waits for a person's word, with exactly the arguments it would have."""

    __table_args__ = (Index("ix_approval_state", "state"), Index("ix_approval_run", "run_id"))

    id: str = Field(primary_key=True, max_length=32)
    run_id: str = Field(foreign_key="run.id", max_length=40)
    iteration: int
    action: str = Field(max_length=64)
    arguments: str = Field(sa_type=Text)
    digest: str = Field(max_length=64)
    evidence: str = Field(default="{}", sa_type=Text)
    reason: str = Field(sa_type=Text)
    state: str = Field(max_length=16)
    note: str = Field(default="", sa_type=Text)
    created_at: int = Field(sa_type=BigInteger)
    expires_at: int = Field(sa_type=BigInteger)
    decided_at: int | None = Field(default=None, sa_type=BigInteger)
    used_at: int | None = Field(default=None, sa_type=BigInteger)


class GovernorRuling(SQLModel, table=True):
    """The audit log: every ruling of the governor, and what persons said of it. Only added to."""

    __tablename__ = "governor_ruling"
    __table_args__ = (Index("ix_governor_ruling_run", "run_id"),)

    id: int | None = Field(default=None, sa_column=Column(Integer, primary_key=True))
    run_id: str = Field(max_length=40)
    iteration: int
    action: str = Field(max_length=64)
    arguments: str = Field(sa_type=Text)
    digest: str = Field(max_length=64)
    ruling: str = Field(max_length=16)
    reason: str = Field(sa_type=Text)
    approval_id: str | None = Field(default=None, max_length=32)
    created_at: int = Field(sa_type=BigInteger)


class Memory(SQLModel, table=True):
    """Something worth knowing later; one that was consolidated names what took its place."""

    __table_args__ = (Index("ix_memory_topic", "topic", "created_at"),)

    id: str = Field(primary_key=True, max_length=32)
    run_id: str | None = Field(default=None, max_length=40)
    topic: str = Field(max_length=64)
    content: str = Field(sa_type=Text)
    source: str = Field(max_length=16)
    replaced_by: str | None = Field(default=None, max_length=32)
    created_at: int = Field(sa_type=BigInteger)


class Worker(SQLModel, table=True):
    """A worker process and its last sign of life."""

    token: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=80)
    lane: str = Field(max_length=64)
    host: str = Field(max_length=200)
    pid: int
    state: str = Field(max_length=16)
    started_at: int = Field(sa_type=BigInteger)
    heartbeat_at: int = Field(sa_type=BigInteger)
    stats: str = Field(default="{}", sa_type=Text)


class LaneStanding(SQLModel, table=True):
    """A lane that was taken out of service; one that serves has no row."""

    __tablename__ = "lane_standing"

    lane: str = Field(primary_key=True, max_length=64)
    standing: str = Field(max_length=16)
    reason: str = Field(default="", sa_type=Text)
    supervisor: str = Field(default="", max_length=400)
    """Who took it out of service: machine and directory of a stack."""
    since: int = Field(sa_type=BigInteger)


class Supervised(SQLModel, table=True):
    """A process of a stack as its supervisor sees it: a worker, or the embedded broker."""

    supervisor: str = Field(primary_key=True, max_length=400)
    name: str = Field(primary_key=True, max_length=80)
    lane: str = Field(max_length=64)
    state: str = Field(max_length=16)
    placement: str = Field(default="", max_length=80)
    pid: int | None = None
    restarts: int = 0
    reason: str = Field(default="", sa_type=Text)
    """Why it was started again last."""
    changed_at: int = Field(sa_type=BigInteger)
    seen_at: int = Field(sa_type=BigInteger)


class Provider(SQLModel, table=True):
    """A provider's circuit breaker and rate limit, shared by all workers."""

    name: str = Field(primary_key=True, max_length=64)
    failures: int = 0
    """Outages in a row."""
    openings: int = 0
    """Times the breaker opened without a success between."""
    open_until: int | None = Field(default=None, sa_type=BigInteger)
    probe_until: int | None = Field(default=None, sa_type=BigInteger)
    """Until when one call that tries whether it is back may take."""
    reason: str = Field(default="", sa_type=Text)
    paused_until: int = Field(default=0, sa_type=BigInteger)
    """The provider's own wish (Retry-After)."""
    next_slot_at: int = Field(default=0, sa_type=BigInteger)


class Tally(SQLModel, table=True):
    """What one transaction counted, as JSON: series and what is added to each."""

    id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    )
    counts: str = Field(sa_type=Text)


class TallyTotal(SQLModel, table=True):
    """What a series has come to, less what is still in tallies; in the ledger's units."""

    __tablename__ = "tally_total"

    key: str = Field(primary_key=True, max_length=400)
    value: int = Field(sa_type=BigInteger)


class Leader(SQLModel, table=True):
    """Who holds an office that only one process may hold at a time, and until when."""

    office: str = Field(primary_key=True, max_length=64)
    holder: str = Field(max_length=80)
    until: int = Field(sa_type=BigInteger)


TABLES = SQLModel.metadata
