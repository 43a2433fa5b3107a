"""What was used, record by record: one for each call, one for each decision that no call answered.

Whatever sums up costs goes by these records: reports, projections, targets and exported logs, so
that all of them say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

ANSWERED = "answered"
UNKNOWN_TIER = "unknown"
"""The tier of a lane whose profile is not there any more."""
NONE = "none"
"""The lane, tier and model of what nobody answered."""
NOTHING = Decimal(0)


class Role(StrEnum):
    """What a decision is asked for."""

    QUESTION = "question"
    CRITIQUE = "critique"
    VOTE = "vote"
    CLASSIFICATION = "classification"
    AUDIT = "audit"


class Place(StrEnum):
    """Where a call is made: on this machine without a price, or at a provider."""

    LOCAL = "local"
    API = "api"


class Usage(NamedTuple):
    """One call, or, without ``attempt``, a decision that no call answered (``outcome`` says why).

    Times are microseconds, money is micro-dollars. ``tokens_in`` includes ``tokens_cached``.
    ``api_in`` and ``api_out`` are the tokens for which the reference model alone would have been
    paid: those of a question's ``last`` answer, or an estimate where no call answered, else 0.
    """

    time: int | None
    run: str
    decision: str
    attempt: str
    kind: str
    role: Role
    lane: str
    tier: str
    model: str
    place: Place | None
    """Absent where there was no call."""
    planned: Place | None
    """Where the decision's plan begins."""
    outcome: str
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    cost: Decimal = NOTHING
    unknown: Decimal = NOTHING
    """The most that it can have cost beside ``cost``: nobody knows whether it was served."""
    latency_us: int | None = None
    waiting_us: int | None = None
    score: float | None = None
    passed: bool | None = None
    fallback: bool = False
    """Whether it was made on another lane than the plan's first."""
    last: bool = False
    """Whether it gave its decision the last answer that a call gave; audits have none."""
    api_in: int = 0
    api_out: int = 0

    @property
    def success(self) -> bool:
        """Whether an answer came that counts."""
        return self.outcome == ANSWERED


@dataclass(frozen=True)
class Selection:
    """Which records: of a run, since a time (microseconds since 1970), of a kind.

    Calls count by when they were made, what no call answered by when it settled.
    """

    run: str | None = None
    since: int | None = None
    kind: str | None = None
