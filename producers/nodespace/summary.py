"""What a session came to, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from ledger.money import dollars
from producers.nodespace.history import Turn


class SessionSummary(BaseModel):
    """Figures of a session; money in dollars, converted from whole micro-dollars."""

    requests: int
    answered: int
    by_status: dict[str, int]
    by_tier: dict[str, int]
    local_share: float | None
    """Of the answered requests, those whose answer was given on this machine."""
    private: int
    """Requests that were not allowed to leave it."""
    by_adapter: dict[str, int]
    streamed: int
    """Requests of whose answer something was heard before it was settled."""
    cost_usd: float
    dearest_usd: float
    seconds: float


def summary(turns: Sequence[Turn]) -> SessionSummary:
    """The figures of a session's turns."""
    answered = [turn for turn in turns if turn.answer]
    local = sum(turn.local for turn in answered)
    return SessionSummary(
        requests=len(turns),
        answered=len(answered),
        by_status=dict(Counter(turn.status.value for turn in turns).most_common()),
        by_tier=dict(Counter(turn.tier or "none" for turn in turns).most_common()),
        local_share=local / len(answered) if answered else None,
        private=sum(turn.privacy.stays_home for turn in turns),
        by_adapter=dict(Counter(turn.adapter for turn in turns if turn.adapter).most_common()),
        streamed=sum(turn.streamed_chars > 0 for turn in turns),
        cost_usd=dollars(sum(turn.cost_micros for turn in turns)),
        dearest_usd=dollars(max((turn.cost_micros for turn in turns), default=0)),
        seconds=sum(turn.seconds for turn in turns),
    )


def shown(turn: Turn) -> dict[str, Any]:
    """A turn as JSON shows it."""
    return {
        "number": turn.number,
        "request": turn.request,
        "answer": turn.answer,
        "status": turn.status.value,
        "reason": turn.reason,
        "lane": turn.lane,
        "tier": turn.tier,
        "model": turn.model,
        "local": turn.local,
        "privacy": turn.privacy.value,
        "adapter": turn.adapter,
        "cost_usd": dollars(turn.cost_micros),
        "seconds": round(turn.seconds, 3),
        "streamed_chars": turn.streamed_chars,
        "recorded": turn.recorded,
    }
