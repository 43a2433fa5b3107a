"""What the swarm daemon did, wanted to do, and remembers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


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
