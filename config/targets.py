"""What a week's costs and quality are held to, as a profile sets it."""

from __future__ import annotations

from decimal import Decimal

from pydantic import Field

from config.prices import Dollars
from config.strategies import Share
from config.weights import Strict


class Targets(Strict):
    """Bounds that `uptier costs check` holds measured values to."""

    cost_per_week_usd: Dollars = Decimal(5)
    """Spent below it."""
    savings: Share = 0.7
    """Of what the reference model alone would have cost; saved above it."""
    latency_ms: float = Field(default=500, gt=0)
    """Average time of a call for a question below it, without waiting in the queue."""
    pass_rate: Share = 0.95
    """Answers to questions that passed the check, at least."""
    fallback: Share = 0.1
    """Questions that began on a local lane and were answered by the API, below it."""
    local: Share = 0.6
    """Calls for questions on local lanes, at least."""
    score: Share = 0.8
    """Average score of answers to questions, above it."""
    critique: Share = 0.9
    """Critics that said yes, above it."""
