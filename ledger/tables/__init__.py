"""The ledger's tables. Times are microseconds since 1970 (UTC), money is micro-dollars."""

from __future__ import annotations

from sqlmodel import SQLModel

from ledger.tables.answers import (
    CacheAudit,
    CacheEntry,
    Calibration,
    Certificate,
    Label,
    LaneHistory,
    Policy,
)
from ledger.tables.decisions import Attempt, BatchLine, Budget, Decision, Outbox, Prefix, Run
from ledger.tables.fleet import (
    LaneStanding,
    Leader,
    Provider,
    Supervised,
    Tally,
    TallyTotal,
    Worker,
)
from ledger.tables.swarm import Approval, GovernorRuling, Memory, SwarmAction

TABLES = SQLModel.metadata

__all__ = [
    "TABLES",
    "Approval",
    "Attempt",
    "BatchLine",
    "Budget",
    "CacheAudit",
    "CacheEntry",
    "Calibration",
    "Certificate",
    "Decision",
    "GovernorRuling",
    "Label",
    "LaneHistory",
    "LaneStanding",
    "Leader",
    "Memory",
    "Outbox",
    "Policy",
    "Prefix",
    "Provider",
    "Run",
    "Supervised",
    "SwarmAction",
    "Tally",
    "TallyTotal",
    "Worker",
]
