"""What a rubric finds out about one answer, before it is weighed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Findings:
    """The checks of an answer, each from 0 (fails) to 1 (holds), and their reasons in words.

    ``answer`` is the label, the stripped text or canonical JSON; it is empty where a veto
    stands. A veto means that the answer must never be returned.
    """

    answer: str = ""
    format: float = 1.0
    completeness: float = 1.0
    coherence: float = 1.0
    vetoes: tuple[str, ...] = ()
    issues: tuple[str, ...] = ()


def nothing_said() -> Findings:
    """The findings of an empty answer."""
    return Findings(format=0.0, completeness=0.0, coherence=0.0, vetoes=("the answer is empty",))
