"""Required fields: lines ``NAME: value`` of a text, keys of a JSON object."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from routing.findings import Findings


def with_fields(found: Findings, required: Sequence[str], *, is_json: bool) -> Findings:
    """``found`` with what is missing of the ``required`` fields.

    A field that is missing or has no value fails completeness and format, as a missing field of
    JSON's own schema does: an answer without it never passes at the default threshold.
    """
    if not required or found.vetoes:
        return found
    there = _keys(found.answer) if is_json else None
    missing = [
        name
        for name in required
        if (name not in there if there is not None else not _line(name).search(found.answer))
    ]
    if not missing:
        return found
    issue = f"required and missing: {', '.join(missing)}"
    return replace(found, format=0.0, completeness=0.0, issues=(*found.issues, issue))


def _keys(answer: str) -> set[str]:
    """The keys of an object that have a value: neither null nor blank nor empty."""
    value = json.loads(answer)
    if not isinstance(value, dict):
        return set()
    return {
        name
        for name, inner in value.items()
        if inner is not None
        and (bool(inner.strip()) if isinstance(inner, str) else inner not in ([], {}))
    }


@lru_cache(maxsize=512)
def _line(name: str) -> re.Pattern[str]:
    # "**DECISION:** wait", "- Decision: wait", "decision : wait"
    words = r"[ _]".join(re.escape(word) for word in re.split(r"[ _]", name))
    return re.compile(rf"^[ \t>*_#-]*{words}[ \t*_]*:[ \t*_]*[^\s*_]", re.MULTILINE | re.IGNORECASE)
