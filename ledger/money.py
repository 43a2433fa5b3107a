"""Money as people read it; the ledger itself has whole micro-dollars."""

from __future__ import annotations


def dollars(micros: int) -> float:
    """Micro-dollars for display; sums are made before this, in whole micro-dollars."""
    return micros / 1_000_000
