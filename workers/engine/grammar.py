"""From a JSON Schema to a grammar that llama.cpp can bear."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import llama_cpp
from llama_cpp.llama_grammar import json_schema_to_gbnf

from config.errors import BackendError
from routing.structured import schema_fault
from workers.engine.loosening import ANYTHING, TooLarge, loosened

REPETITIONS = (500, 20, 0)
"""Bounds of repetitions that a grammar has, from the closest to the loosest. llama.cpp's parser
refuses 2,000 and overflows its stack at 20,000; what is dropped, the quality check still holds."""
MOST_TEXT = 200_000
"""Characters of a grammar."""
_FAULTS = (TooLarge, AssertionError, AttributeError, LookupError, RecursionError, TypeError,
           ValueError)  # fmt: skip
"""What the converter raises over schemas that it does not know how to read."""
_CHAR = r'char ::= [^"\\] |'
_PRINTABLE = r'char ::= [^"\\\x00-\x1F\x7F] |'


@lru_cache(maxsize=64)
def grammar(schema: str) -> str:
    """The grammar of a schema (JSON, 2020-12); properties come in its order, required ones first.

    It allows all values that the schema allows, and others: bounds of numbers and large
    repetitions are not in it, and of a schema that is too large only the type is. Objects get
    no more properties than are named. It is built and tried in the caller's thread.

    Raises:
        BackendError: the schema itself is wrong, and how; not to be tried again.
    """
    try:
        asked = json.loads(schema)
        fault = schema_fault(asked)
    except (ValueError, RecursionError) as error:
        fault = str(error)
    if fault is not None:
        raise BackendError(f"the JSON schema gives no grammar: {fault}", retryable=False)
    for most in REPETITIONS:
        found = _converted(asked, most)
        if found is not None and _parses(found):
            return found
    return _text({"type": asked["type"]} if asked.get("type") in ("object", "array") else ANYTHING)


def _converted(schema: object, most: int) -> str | None:
    try:
        found = _text(loosened(schema, most))
    except _FAULTS:
        return None
    return found if len(found) <= MOST_TEXT else None


def _text(schema: Any) -> str:
    # A line break within a string would be no JSON; the converter's own rule lets it through.
    return str(json_schema_to_gbnf(json.dumps(schema))).replace(_CHAR, _PRINTABLE)


def _parses(text: str) -> bool:
    """Whether llama.cpp takes a grammar; it needs no vocabulary for that."""
    sampler = llama_cpp.llama_sampler_init_grammar(None, text.encode(), b"root")
    if not sampler:
        return False
    llama_cpp.llama_sampler_free(sampler)
    return True
