"""Runs, and the decisions in them from submission to settlement."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

PAID = text("(cost_micros > 0 OR estimated_micros > 0)")
"""Attempts that cost something or may; word by word what their index says, or it is not used."""


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
        Index("ix_attempt_paid", "id", sqlite_where=PAID, postgresql_where=PAID),
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
