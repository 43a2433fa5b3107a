"""The rubric for text: clean, whole, and not going round in circles."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import islice
from operator import eq
from string import ascii_letters, digits

from routing.findings import Findings, nothing_said
from routing.refusals import refuses
from routing.syntax import broken_block

LONGEST_CYCLE = 8
"""Words in the longest phrase whose immediate repetition is looked for."""
COPIES = {1: 5, 2: 4}
FEWEST_COPIES = 3
"""Copies in a row that make a loop: of one word, of two, of longer phrases."""
REPEATED_LINES = 3
"""Copies of one line, if they are the greater part of the text, that make a loop."""
FOUR_GRAMS = 30
"""Four-word sequences from which their variety says something; below half distinct is a loop."""
SOME_CHARS = 8
"""Characters from which the share of letters and digits says something; half must be such."""
MANY_CHARS = 40
"""Characters from which the share of letters says something; a fifth must be letters."""
RUN = 16
"""Copies of one character in a row that make a loop."""
ECHO_CHARS = 20
"""Characters below which a text that occurs in the prompt is a quotation, not an echo."""

_MARKUP = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
    r"|^#{2,3} (?:Instruction|Response|Input):",
    re.MULTILINE,
)
_PLACEHOLDER = re.compile(
    r"(?<![\w$/{}^_])\{[a-z][a-z_ ]{1,39}\}(?![\w/}])|\{\{ ?[a-z][\w. ]{0,39} ?\}\}"
    r"|\[(?:your|insert|recipient|sender)\b[^\]\n]{0,40}\]",
    re.IGNORECASE,
)
_FENCED = re.compile(r"^ {0,3}```.*?^ {0,3}```[ \t]*$", re.MULTILINE | re.DOTALL)
_FENCE_LINE = re.compile(r"^ {0,3}```.*$", re.MULTILINE)
_CODE_SPAN = re.compile(r"`[^`\n]*`|\bf?\"[^\"\n]*\"|\bf'[^'\n]*'")
_SENTENCE_END = re.compile(r"(?:[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]*_]*|```)$")
_ONE_CHARACTER = re.compile(rf"([^\s\-=_*#.~/|+])\1{{{RUN - 1}}}")
_BLANKS = str.maketrans("", "", "\n\r\t")
_LETTERS, _DIGITS = ascii_letters.encode(), digits.encode()


def check_text(raw: str, *, truncated: bool, prompt: str, min_chars: int) -> Findings:
    """The rubric of a text.

    Format: printable, code fences in pairs, no residue of chat or template markup.
    Completeness: ``min_chars`` or more, and not broken off by the token limit within a sentence.
    Coherence: no loops, mostly letters, no echo of ``prompt``, and code blocks parse as the
    language that they are marked with. A refusal is a veto.
    """
    text = raw.strip()
    if not text:
        return nothing_said()
    vetoes = ("the model refuses",) if refuses(text) else ()
    stray, lacking = _residue(text), _lack(text, truncated, min_chars)
    echo = "it repeats the question" if is_echo(text, prompt) else None
    confused = loop(text) or _gibberish(text) or echo or broken_block(text)
    return Findings(
        answer=text if not vetoes else "",
        format=0.0 if stray else 1.0,
        completeness=0.0 if lacking else 1.0,
        coherence=0.0 if confused or vetoes else 1.0,
        vetoes=vetoes,
        issues=tuple(issue for issue in (stray, lacking, confused) if issue is not None),
    )


def _residue(text: str) -> str | None:
    outside = text
    if "```" in text:
        if len(_FENCE_LINE.findall(text)) % 2:
            return "a code fence is left open"
        if not _FENCE_LINE.sub("", text).strip():
            return "there is nothing between the code fences"
        outside = _FENCED.sub("", text)
    if _is_unprintable(text.translate(_BLANKS)):
        return "there are unprintable characters"
    stray = _MARKUP.search(outside) if any(c in outside for c in "<[#") else None
    if stray is None and any(c in outside for c in "{["):
        # Braces in code are its own business.
        stray = _PLACEHOLDER.search(_CODE_SPAN.sub("", outside))
    return None if stray is None else f"{stray.group()!r} is left over from a template"


def _is_unprintable(text: str) -> bool:
    if text.isprintable():
        return False
    return any(unicodedata.category(c) in ("Cc", "Cs", "Cn") for c in text)


def _lack(text: str, truncated: bool, min_chars: int) -> str | None:
    if len(text) < min_chars:
        return f"{len(text)} characters are fewer than {min_chars}"
    if truncated and not _SENTENCE_END.search(text):
        return "the token limit cuts it off within a sentence"
    return None


def loop(text: str) -> str | None:
    """How a text goes round in circles, or ``None`` if it does not."""
    words = text.casefold().split()
    if "\n" in text:
        lines = Counter(line for line in map(str.strip, text.splitlines()) if len(line.split()) > 2)
        line, count = lines.most_common(1)[0] if lines else ("", 0)
        if count >= REPEATED_LINES and 2 * count * len(line.split()) > len(words):
            return f"the line {line[:40]!r} comes {count} times"
    for length in range(1, LONGEST_CYCLE + 1):
        phrase = _cycle(words, length)
        if phrase is not None:
            return f"{phrase[:40]!r} is repeated over and over"
    four_grams = len(words) - 3
    if four_grams >= FOUR_GRAMS:
        distinct = set(zip(words, words[1:], words[2:], words[3:], strict=False))
        if 2 * len(distinct) < four_grams:
            return "it says the same again and again"
    if any(len(word) >= RUN and _ONE_CHARACTER.search(word) for word in words):
        return "one character is repeated over and over"
    return None


def _cycle(words: list[str], length: int) -> str | None:
    """The first phrase of ``length`` words that follows on itself often enough to be a loop."""
    needed = (COPIES.get(length, FEWEST_COPIES) - 1) * length
    if sum(map(eq, words, islice(words, length, None))) < needed:
        return None
    same = 0
    for index in range(length, len(words)):
        same = same + 1 if words[index] == words[index - length] else 0
        if same >= needed:
            phrase = " ".join(words[index - length + 1 : index + 1])
            if any(c.isalpha() for c in phrase):
                return phrase
    return None


def _gibberish(text: str) -> str | None:
    solid = "".join((_FENCE_LINE.sub("", text) if "```" in text else text).split())
    letters, figures = _census(solid)
    few = len(solid) >= SOME_CHARS and 2 * (letters + figures) < len(solid)
    fewer = len(solid) >= MANY_CHARS and 5 * letters < len(solid)
    return "most of it is not words" if few or fewer else None


def _census(solid: str) -> tuple[int, int]:
    """How many letters and how many digits there are."""
    if not solid.isascii():
        return sum(map(str.isalpha, solid)), sum(map(str.isdigit, solid))
    plain = solid.encode()
    without_letters = plain.translate(None, _LETTERS)
    return len(plain) - len(without_letters), len(plain) - len(plain.translate(None, _DIGITS))


def is_echo(text: str, prompt: str) -> bool:
    """Whether a text is the greater part of its prompt, or says it with little beside it."""
    said, asked = (" ".join(part.casefold().split()) for part in (text, prompt))
    shorter, longer = sorted((said, asked), key=len)
    return len(shorter) >= ECHO_CHARS and 2 * len(shorter) >= len(longer) and shorter in longer
