"""Workers and lanes, providers, counts, and who leads."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Text
from sqlmodel import Field, SQLModel


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
