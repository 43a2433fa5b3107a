"""What to do after a backend failed: the same lane later, or no more of it."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 60.0
LONGEST_WISH_S = 120.0
"""A provider that wants to be left alone for longer is away: other lanes answer."""


@dataclass(frozen=True)
class RetryDecision:
    """Whether to try the same lane again, and after how many seconds."""

    again: bool
    delay_s: float = 0.0


def after_failure(
    *,
    tries: int,
    max_tries: int,
    retryable: bool,
    retry_after_s: float | None,
    rng: random.Random,
) -> RetryDecision:
    """What follows the ``tries``-th failed try of a lane.

    Exponential backoff with equal jitter (Brooker 2015, "Exponential Backoff And Jitter"), never
    sooner than the provider asked for.
    """
    away = retry_after_s is not None and retry_after_s > LONGEST_WISH_S
    if not retryable or away or tries >= max_tries:
        return RetryDecision(again=False)
    ceiling = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (tries - 1))
    delay = rng.uniform(ceiling / 2, ceiling)
    return RetryDecision(again=True, delay_s=max(delay, retry_after_s or 0.0))
