"""Agreement: whether two answers to one question say the same."""

from __future__ import annotations

import ast
import json
import unicodedata
from collections.abc import Mapping

from config.demands import Demands, Language
from routing.decision import ChoiceOutput, JsonOutput, Output
from routing.syntax import syntax_fault

PLAIN = Demands()


def agreement_key(answer: str, output: Output, demands: Demands = PLAIN) -> str:
    """A text that is equal for two answers if and only if they agree.

    Labels agree if they are the same; JSON, if its values are equal (``1`` and ``1.0`` are); code,
    if its syntax trees are, where the language is Python, else if it differs in blanks alone;
    other text, if its words are the same, without regard to case, blanks and the signs around
    words.
    """
    if isinstance(output, ChoiceOutput):
        return answer
    try:
        if isinstance(output, JsonOutput):
            return _json_key(answer)
        if demands.language is not None:
            return _code_key(answer, demands.language)
    except RecursionError:  # nested too deep to be taken apart
        return " ".join(answer.split())
    words = unicodedata.normalize("NFKC", answer).casefold().split()
    bare = (word.strip(".,;:!?\"'`*_()\u2026\u201c\u201d\u2018\u2019") for word in words)
    return " ".join(word for word in bare if word)


def agreement(
    answer: str, others: Mapping[str, str], output: Output, demands: Demands = PLAIN
) -> dict[str, bool]:
    """Whether ``answer`` agrees with each of ``others``, by the lane that gave it.

    Where one of two answers is empty, which a vetoed one is, there is nothing to compare.
    """
    if not answer or not others:
        return {}
    own = agreement_key(answer, output, demands)
    said = {lane: other for lane, other in others.items() if other}
    return {lane: agreement_key(other, output, demands) == own for lane, other in said.items()}


def _json_key(answer: str) -> str:
    return json.dumps(_plain(json.loads(answer)), sort_keys=True)


def _plain(value: object) -> object:
    """Whole floats as integers, so that 1.0 is 1."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _code_key(answer: str, language: Language) -> str:
    if syntax_fault(answer, language) is None:
        if language == "python":
            return ast.dump(ast.parse(answer))
        if language == "json":
            return _json_key(answer)
    return " ".join(answer.split())
