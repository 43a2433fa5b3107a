"""The quality check's rubric: format .3, completeness .2, coherence .3, critique .2, and vetoes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import jsonschema

from routing.decision import ChoiceOutput, JsonOutput, Output, TextOutput

WEIGHTS = {"format": 0.3, "completeness": 0.2, "coherence": 0.3, "critique": 0.2}

_MARKUP = re.compile(r"<\|[^|>]{1,40}\|>|</s>|\[/?INST\]|\{[a-z_]{2,30}\}")
_FENCE = re.compile(r"^```(?:json)?\s*\n(.*)\n```$", re.DOTALL)
_REFUSAL = re.compile(
    r"\b(as an ai( language)? model|i('m| am) (sorry,? but i|unable to|not able to) (can|help|"
    r"assist|comply|provide|do)|i (can ?not|can't|won't|will not) (help|assist|comply|provide|"
    r"answer|fulfil|do) )",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*$")


@dataclass(frozen=True)
class Answer:
    """An attempt's answer as the check sees it; ``prompt`` tells an echo from an answer."""

    raw: str
    label: str | None = None
    probabilities: tuple[float, ...] | None = None
    truncated: bool = False
    prompt: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the check says: each part and ``score`` between 0 and 1; ``critique`` is ``None`` if
    nobody was asked. ``answer`` is the label, the trimmed text, or canonical JSON."""

    format: float
    completeness: float
    coherence: float
    critique: float | None
    score: float
    passed: bool
    answer: str
    vetoes: tuple[str, ...] = ()
    issues: tuple[str, ...] = ()


@dataclass
class _Findings:
    format: float = 1.0
    completeness: float = 1.0
    coherence: float = 1.0
    answer: str = ""
    vetoes: list[str] = field(default_factory=list)
    issues: list[str] = field(default_factory=list)


def check(
    answer: Answer,
    output: Output,
    *,
    threshold: float,
    margin: float,
    critique: bool | None = None,
) -> Verdict:
    """Judge an answer by the rubric of its output. Never raises, whatever the text."""
    if isinstance(output, ChoiceOutput):
        found = _check_choice(answer, output, margin)
    elif isinstance(output, JsonOutput):
        found = _check_json(answer, output)
    else:
        found = _check_text(answer, output)
    parts: dict[str, float] = {
        "format": found.format,
        "completeness": found.completeness,
        "coherence": found.coherence,
    }
    if critique is not None:
        parts["critique"] = 1.0 if critique else 0.0
        if not critique:
            found.issues.append("the critic finds that the answer does not fit")
    whole = sum(WEIGHTS[name] for name in parts)
    score = round(sum(WEIGHTS[name] * value for name, value in parts.items()) / whole, 6)
    return Verdict(
        **{"critique": None, **parts},
        score=score,
        passed=not found.vetoes and score >= threshold,
        answer="" if found.vetoes else found.answer,
        vetoes=tuple(found.vetoes),
        issues=tuple(found.issues),
    )


def parse_choice(raw: str, labels: tuple[str, ...]) -> str | None:
    """The label that a text names: exactly, else in another case, else as its only whole word.

    Where labels contain one another the longest that fits counts; ``None`` if several are named.
    """
    text = raw.strip().strip("\"'`*.,:;!").strip()
    for same in (text.__eq__, lambda label: text.casefold() == label.casefold()):
        exact = [label for label in labels if same(label)]
        if len(exact) == 1:
            return exact[0]
    rest, named = raw.casefold(), set()
    for label in sorted(labels, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(label.casefold())}(?!\w)"
        if re.search(pattern, rest):
            named.add(label)
            rest = re.sub(pattern, " ", rest)
    return named.pop() if len(named) == 1 else None


def _check_choice(answer: Answer, output: ChoiceOutput, margin: float) -> _Findings:
    found = _Findings()
    label = answer.label if answer.label in output.labels else None
    label = label or parse_choice(answer.raw, output.labels)
    if not answer.raw.strip() and label is None:
        found.vetoes.append("empty answer")
    elif label is None:
        found.vetoes.append(f"{answer.raw.strip()[:40]!r} is not one of the labels")
    if label is None:
        found.format = found.completeness = found.coherence = 0.0
        return found
    found.answer = label
    if answer.probabilities is not None and len(answer.probabilities) == len(output.labels):
        best, second = sorted(answer.probabilities, reverse=True)[:2]
        if best - second < margin:
            found.coherence = 0.0
            found.issues.append(f"a guess: {best:.3f} for the best label, {second:.3f} for the next")
    return found


def _check_text(answer: Answer, output: TextOutput) -> _Findings:
    text = answer.raw.strip()
    found = _Findings(answer=text)
    if not text:
        found.vetoes.append("empty answer")
        found.format = found.completeness = found.coherence = 0.0
        return found
    if _REFUSAL.search(text):
        found.vetoes.append("the model refuses")
    if _MARKUP.search(text) or text.count("```") % 2 or not text.replace("\n", " ").isprintable():
        found.format = 0.0
        found.issues.append("markup or template residue in the text")
    if len(text) < output.min_chars:
        found.completeness = 0.0
        found.issues.append(f"shorter than {output.min_chars} characters")
    elif answer.truncated and not _SENTENCE_END.search(text):
        found.completeness = 0.5
        found.issues.append("cut off by the token limit")
    fault = _incoherence(text, answer.prompt)
    if fault:
        found.coherence = 0.0
        found.issues.append(fault)
    return found


def _incoherence(text: str, prompt: str) -> str:
    words = text.casefold().split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    if len(trigrams) >= 6 and len(set(trigrams)) < 0.6 * len(trigrams):
        return "repeats itself"
    if sum(c.isalpha() or c.isspace() for c in text) < 0.5 * len(text):
        return "mostly not words"
    if len(text) > 20 and text.casefold() in prompt.casefold():
        return "repeats the question"
    return ""


def _check_json(answer: Answer, output: JsonOutput) -> _Findings:
    text = answer.raw.strip()
    found = _Findings()
    fenced = _FENCE.match(text)
    if fenced:
        text, found.format = fenced.group(1), 0.7
        found.issues.append("JSON inside a code fence")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        found.vetoes.append("empty answer" if not text else "not JSON")
        found.format = found.completeness = found.coherence = 0.0
        return found
    found.answer = json.dumps(value, sort_keys=True, ensure_ascii=False)
    _hold_to_schema(value, output.json_schema, found)
    hollow = _hollow(value, output.json_schema)
    if hollow:
        found.coherence = 0.0
        found.issues.append(f"nothing in {', '.join(hollow)}")
    return found


def _hold_to_schema(value: Any, schema: dict[str, Any], found: _Findings) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    for error in validator.iter_errors(value):
        if error.validator == "required":
            found.completeness = 0.0
        else:
            found.format = 0.0
        found.issues.append(error.message[:200])


def _hollow(value: Any, schema: dict[str, Any]) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [name for name in schema.get("required", []) if value.get(name) in ("", [], {})]
