"""What is known of answers: which serve again, and how far each lane can be trusted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


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
