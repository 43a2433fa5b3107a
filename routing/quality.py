"""The quality check: a verdict on one answer, from the rubric of its kind of output."""

from __future__ import annotations

from dataclasses import dataclass

from routing.choices import check_choice, parse_choice
from routing.decision import ChoiceOutput, JsonOutput, Output
from routing.findings import Findings
from routing.prose import check_text
from routing.structured import check_json

__all__ = ["Answer", "Verdict", "check", "parse_choice", "usable"]

FORMAT, COMPLETENESS, COHERENCE, CRITIQUE = 0.3, 0.2, 0.3, 0.2
"""What each check weighs in the score."""


@dataclass(frozen=True)
class Answer:
    """What a model said, as far as the check goes.

    ``label`` and ``probabilities`` (one a label, in the order of the output) are those of a
    backend that chooses by probability; ``truncated`` means that the token limit ended the
    text; ``prompt`` is what was asked, so that an echo is known for one.
    """

    raw: str
    label: str | None = None
    probabilities: tuple[float, ...] | None = None
    truncated: bool = False
    prompt: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the check says of an answer; the four checks and the score are between 0 and 1.

    ``critique`` is ``None`` if no critic was asked. ``answer`` is what to hand back: the label,
    the stripped text, or canonical JSON; it is empty where a veto stands.
    """

    format: float
    completeness: float
    coherence: float
    critique: float | None
    score: float
    vetoes: tuple[str, ...]
    issues: tuple[str, ...]
    passed: bool
    answer: str


def check(
    answer: Answer,
    output: Output,
    *,
    threshold: float,
    margin: float,
    critique: bool | None,
) -> Verdict:
    """Weigh an answer: it passes if no veto stands and the score reaches ``threshold``.

    The score is the weighted mean of the checks that were made. For a choice, the best label
    must lead the next one by more than ``margin`` in probability. ``critique`` is what the
    critic said, ``None`` if it was not asked.
    """
    found = _findings(answer, output, margin)
    score = _score(found, critique)
    doubts = ("the critic says that the answer does not fit",) if critique is False else ()
    return Verdict(
        format=found.format,
        completeness=found.completeness,
        coherence=found.coherence,
        critique=None if critique is None else float(critique),
        score=score,
        vetoes=found.vetoes,
        issues=(*found.issues, *doubts),
        passed=not found.vetoes and score >= threshold,
        answer=found.answer,
    )


def usable(answer: Answer, output: Output) -> bool:
    """Whether an answer may be handed back at all, be it below the bar: no veto stands."""
    return not _findings(answer, output, 0.0).vetoes


def _findings(answer: Answer, output: Output, margin: float) -> Findings:
    if isinstance(output, ChoiceOutput):
        return check_choice(answer.raw, answer.label, answer.probabilities, output.labels, margin)
    if isinstance(output, JsonOutput):
        return check_json(answer.raw, truncated=answer.truncated, schema=output.json_schema)
    return check_text(
        answer.raw,
        truncated=answer.truncated,
        prompt=answer.prompt,
        min_chars=output.min_chars,
    )


def _score(found: Findings, critique: bool | None) -> float:
    total = FORMAT * found.format + COMPLETENESS * found.completeness + COHERENCE * found.coherence
    weight = FORMAT + COMPLETENESS + COHERENCE
    if critique is not None:
        total += CRITIQUE * critique
        weight += CRITIQUE
    return round(total / weight, 6)  # so that .7 reached by sums of tenths is .7
