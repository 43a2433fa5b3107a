"""Groundedness: whether an answer's numbers, names and identifiers come from its prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from routing.findings import Findings

LONGEST_MEASURE = 40
"""Characters of a number with its unit; what is longer is held to the prompt as a whole."""
MOST_NAMED = 5
"""Inventions that an issue names."""

_NUMBER = re.compile(r"\d+(?:,\d{3}(?!\d))+(?:\.\d+)?|\d+(?:[.,]\d+)?")
_MEASURE = re.compile(r"\W*\d[^A-Za-z]*(?:[a-z\u00b5]*|[A-Za-z]{1,4})\W*")
"""Digits, perhaps with a unit, an ordinal's ending or signs between: 4h, 3rd, 5-day, 10:30."""
_LIST_MARK = re.compile(r"^[ \t]*\(?\d{1,2}[.)](?=\s)", re.MULTILINE)
_EDGES = ".,;:!?()[]{}<>\"'`*_~|=+\u2026\u201c\u201d\u2018\u2019\u2013\u2014-"
_ENDS = (".", "!", "?", ":", ";", "\u2026", "\u2014", '."', '!"', '?"', ".)")
_OPENS = ('"', "'", "\u201c", "\u2018", "(", "[", "*", "#", ">", "-", "\u2013")
_SPLITS = re.compile(r"[/&]|\u2014|\.\.\.|\u2026")
_POSSESSIVE = re.compile(r"(?:'|\u2019)s?$")
_SPELT = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
_COMMON = frozenset({"ok", "asap", "fyi", "todo", "eta", "tbd", "yes", "no", "etc", "am", "pm",
                     "dear", "hello", "hi", "i.e", "e.g"})  # fmt: skip
"""Words that may have capitals or dots and name nothing."""


def inventions(text: str, prompt: str) -> list[str]:
    """What a text states that its prompt does not, in order of appearance, each once.

    - A number must occur in the prompt with the same value: ``1,000`` is ``1000.0``, and ``two``
      in the prompt allows ``2``. The marks of a numbered list are no numbers.
    - An identifier (letters with digits behind them, or with ``_``, ``@``, a dot or a capital
      inside) must occur as a word, whatever its case.
    - A name (a word with a capital that begins no sentence, or in capitals alone) must occur as
      a word, whatever its case. A possessive, a plural and the parts of a hyphened word count
      as the word that they derive from.
    """
    numbers, words = _facts(prompt)
    found: dict[str, None] = {}
    for word, initial in _words(_LIST_MARK.sub("", text)):
        if word.islower() and word.isalpha():
            continue
        if len(word) <= LONGEST_MEASURE and _MEASURE.fullmatch(word):
            found |= {n: None for n in _NUMBER.findall(word) if _value(n) not in numbers}
        elif _is_identifier(word):
            if word.casefold() not in words:
                found[word] = None
        else:
            parts = word.split("-")
            named = (p for i, p in enumerate(parts) if _is_name(p, initial=initial and i == 0))
            if any(part.casefold() not in words for part in named):
                found[word] = None
    return list(found)


def with_grounding(found: Findings, prompt: str, *, is_json: bool) -> Findings:
    """``found`` with what the answer invents: an issue that takes its coherence."""
    if found.vetoes:
        return found
    text = "\n".join(_leaves(json.loads(found.answer))) if is_json else found.answer
    invented = inventions(text, prompt)
    if not invented:
        return found
    named = ", ".join(repr(one[:40]) for one in invented[:MOST_NAMED])
    more = f" and {len(invented) - MOST_NAMED} more" if len(invented) > MOST_NAMED else ""
    return replace(
        found, coherence=0.0, issues=(*found.issues, f"not in the prompt: {named}{more}")
    )


@lru_cache(maxsize=256)
def _facts(prompt: str) -> tuple[frozenset[str], frozenset[str]]:
    """The numbers and the words of a prompt; each lane's answer is held to the same ones."""
    words: set[str] = set()
    for word, _ in _words(prompt):
        folded = word.casefold()
        words |= {folded, f"{folded}s", folded.removesuffix("s"), *folded.split("-")}
    numbers = {_value(number) for number in _NUMBER.findall(prompt)}
    numbers |= {_SPELT[word] for word in words if word in _SPELT}
    return frozenset(numbers), frozenset(words)


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """Each word without what stands around it, and whether it begins a sentence."""
    for line in text.splitlines():
        initial = True
        for chunk in line.split():
            if chunk.isalpha():
                yield chunk, initial
                initial = False
                continue
            opens = initial or chunk.startswith(_OPENS)
            for piece in _SPLITS.split(chunk):
                word = _POSSESSIVE.sub("", piece.strip(_EDGES))
                if word:
                    yield word, opens
                    opens = False
            initial = chunk.endswith(_ENDS) or (initial and not any(map(str.isalpha, chunk)))


def _is_identifier(word: str) -> bool:
    if word.islower() and word.isalpha():
        return False
    if word.casefold() in _COMMON or "'" in word or "\u2019" in word:
        return False
    return (
        any(map(str.isdigit, word))
        or any(sign in word for sign in "_@.")
        or any(c.isupper() and b.islower() for b, c in pairwise(word))
    )


def _is_name(word: str, *, initial: bool) -> bool:
    if word.islower() or word.casefold() in _COMMON or not word:
        return False
    if word.isupper():
        return len(word) > 1
    return not initial and word[0].isupper() and word.split("'")[0].split("\u2019")[0] != "I"


def _value(number: str) -> str:
    """A number in one spelling: 1,000 and 1000.0 are 1000, and 3,5 is 3.5."""
    whole, comma, rest = number.rpartition(",")
    if comma and len(rest) != 3 and "." not in rest:
        number = f"{whole}.{rest}"
    number = number.replace(",", "")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return number.lstrip("0") or "0"


def _leaves(value: object) -> Iterator[str]:
    """The strings and numbers of a JSON value; its keys are the schema's."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield format(value, "f") if isinstance(value, float) else str(value)
