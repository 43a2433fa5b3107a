"""The rubric for texts that are code in a declared language."""

from __future__ import annotations

from config.demands import Language
from routing.findings import Findings, nothing_said
from routing.prose import is_echo, loop
from routing.refusals import refuses
from routing.structured import UNWRAPPED
from routing.syntax import blocks, syntax_fault


def check_code(
    raw: str,
    *,
    truncated: bool,
    prompt: str,
    min_chars: int,
    language: Language,
    dialect: str | None,
) -> Findings:
    """The rubric of code.

    Format: the code alone; half where it came in a fence, out of which it is taken.
    Completeness: ``min_chars`` or more, and not ended by the token limit. Coherence: no loops,
    no echo of ``prompt``. What does not parse is a veto, as with JSON: whoever names a language
    runs the answer.
    """
    text = raw.strip()
    if not text:
        return nothing_said()
    fenced = blocks(text, language)
    wrapped = len(fenced) == 1
    code = fenced[0].strip("\n") if wrapped else text
    fault = syntax_fault(code, language, dialect)
    if fault is not None:
        return _broken(text, fault, truncated)
    lacking = _lack(code, truncated, min_chars)
    confused = loop(code) or ("it repeats the question" if is_echo(code, prompt) else None)
    wrapping = "the code came inside a code fence" if wrapped else None
    return Findings(
        answer=code,
        format=UNWRAPPED if wrapped else 1.0,
        completeness=0.0 if lacking else 1.0,
        coherence=0.0 if confused else 1.0,
        issues=tuple(issue for issue in (wrapping, lacking, confused) if issue is not None),
    )


def _broken(text: str, fault: str, truncated: bool) -> Findings:
    if refuses(text):
        veto = "the model refuses"
    else:
        veto = f"the token limit cuts the code off: {fault}" if truncated else fault
    return Findings(format=0.0, completeness=0.0, coherence=0.0, vetoes=(veto,))


def _lack(code: str, truncated: bool, min_chars: int) -> str | None:
    if len(code) < min_chars:
        return f"{len(code)} characters are fewer than {min_chars}"
    return "the token limit ends it" if truncated else None
