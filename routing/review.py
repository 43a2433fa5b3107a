"""Phrases by which an answer asks for a person."""

from __future__ import annotations

import re

PHRASES = (
    "HUMAN_REVIEW_REQUIRED",
    "FLAG_FOR_REVIEW",
    "REQUIRES_HUMAN_VERIFICATION",
    "UNCERTAIN_RESULT",
    "LOW_CONFIDENCE_WARNING",
)
_PHRASE = re.compile("|".join(rf"\b{phrase}\b" for phrase in PHRASES))


def review_phrases(text: str) -> tuple[str, ...]:
    """The phrases of ``text`` that ask for a person, each once, in the order of ``PHRASES``."""
    if "_" not in text:
        return ()
    found = set(_PHRASE.findall(text))
    return tuple(phrase for phrase in PHRASES if phrase in found)
