"""Which of the measured formats to serve: the fastest that leaves the answers as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workers.choices import ORIGINAL, Candidate
from workers.measure import LogProbs, Measurement

AGREEMENT = 0.95  # least share of prompts with the original's most likely next token
DIVERGENCE = 0.02  # most nats of mean KL divergence; docs/models.md says what it separates
WORTH = 1.05  # how much faster than the original a format must be to earn its disk space
TYPICAL_PREFILL = 80  # tokens of a decision's own, after the prefix it shares with others
TYPICAL_DECODE = 16  # tokens of a short answer, decoded in a batch with others


def choose(candidates: Sequence[Candidate]) -> str:
    """The fastest faithful format that is worth a file of its own, else the original."""
    original = next(c for c in candidates if c.format == ORIGINAL)
    faithful = [c for c in candidates if c.faithful and c is not original]
    best = min(faithful, key=lambda c: c.seconds, default=original)
    return best.format if best.seconds * WORTH < original.seconds else ORIGINAL


def candidate(name: str, found: Measurement, reference: LogProbs) -> Candidate:
    """A measured format beside the original's log-probabilities."""
    agreement, divergence = faithfulness(reference, found.log_probs)
    return Candidate(
        format=name,
        prefill=round(found.prefill, 1),
        decode=round(found.decode, 1),
        agreement=round(agreement, 4),
        divergence=round(divergence, 5),
        seconds=round(TYPICAL_PREFILL / found.prefill + TYPICAL_DECODE / found.decode, 6),
        faithful=agreement >= AGREEMENT and divergence <= DIVERGENCE,
        share=round(found.share, 3),
    )


def faithfulness(reference: LogProbs, found: LogProbs) -> tuple[float, float]:
    """Share of rows with the same most likely token, and mean KL(reference || found) in nats."""
    if reference.shape != found.shape or not np.isfinite(found).all():
        return 0.0, float(np.finfo(np.float32).max)
    agreement = (reference.argmax(1) == found.argmax(1)).mean()
    wide = reference.astype(np.float64)
    divergence = (np.exp(wide) * (wide - found)).sum(1).mean()
    return float(agreement), max(0.0, float(divergence))
