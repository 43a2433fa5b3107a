"""The quality check: a verdict on one answer, from the rubric of its kind of output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from config.demands import Demands
from routing.agreement import PLAIN
from routing.choices import check_choice, parse_choice
from routing.code import check_code
from routing.decision import ChoiceOutput, JsonOutput, Output, TextOutput
from routing.fields import with_fields
from routing.findings import Findings
from routing.grounding import with_grounding
from routing.prose import check_text
from routing.review import review_phrases
from routing.structured import check_json

__all__ = ["Answer", "Verdict", "check", "parse_choice"]

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
    the stripped text, or canonical JSON; it is empty where a veto stands. ``agreement`` tells
    whether it is what other lanes said, by their names.
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
    agreement: Mapping[str, bool] = field(default_factory=dict)
    held_back: bool = False
    """Whether the rubric let it pass, and a certificate or the policy did not."""


def check(
    answer: Answer,
    output: Output,
    *,
    threshold: float,
    margin: float,
    critique: bool | None,
    demands: Demands = PLAIN,
) -> Verdict:
    """Weigh an answer: it passes if no veto stands and the score reaches ``threshold``.

    The score is the weighted mean of the checks that were made. For a choice, the best label
    must lead the next one by more than ``margin`` in probability. ``critique`` is what the
    critic said, ``None`` if it was not asked; ``demands`` is what the kind asks for beside.
    """
    found = _findings(answer, output, margin, demands)
    score = _score(found, critique)
    return Verdict(
        format=found.format,
        completeness=found.completeness,
        coherence=found.coherence,
        critique=None if critique is None else float(critique),
        score=score,
        vetoes=found.vetoes,
        issues=(*found.issues, *_doubts(answer, critique)),
        passed=not found.vetoes and score >= threshold,
        answer=found.answer,
    )


def _doubts(answer: Answer, critique: bool | None) -> Iterator[str]:
    if critique is False:
        yield "the critic says that the answer does not fit"
    calls = review_phrases(answer.raw)
    if calls:
        yield f"it asks for a person: {', '.join(calls)}"


def _findings(answer: Answer, output: Output, margin: float, demands: Demands) -> Findings:
    if isinstance(output, ChoiceOutput):
        return check_choice(answer.raw, answer.label, answer.probabilities, output.labels, margin)
    is_json = isinstance(output, JsonOutput)
    found = _bare_findings(answer, output, demands)
    if demands.required_fields:
        found = with_fields(found, demands.required_fields, is_json=is_json)
    if demands.grounded:
        found = with_grounding(found, answer.prompt, is_json=is_json)
    return found


def _bare_findings(answer: Answer, output: TextOutput | JsonOutput, demands: Demands) -> Findings:
    if isinstance(output, JsonOutput):
        return check_json(answer.raw, truncated=answer.truncated, schema=output.json_schema)
    if demands.language is not None:
        return check_code(
            answer.raw,
            truncated=answer.truncated,
            prompt=answer.prompt,
            min_chars=output.min_chars,
            language=demands.language,
            dialect=demands.dialect,
        )
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
