"""The rubric for JSON: strictly parsed, held to its schema, and not hollow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from routing.findings import Findings, nothing_said
from routing.refusals import refuses

MOST_ISSUES = 5
"""Faults that are named; an answer that is all wrong has hundreds."""
MOST_DEPTH = 64
"""Objects and arrays that a JSON Schema has one within another: what checks it goes that deep."""
UNWRAPPED = 0.5
"""The format of JSON that came inside a code fence: readable, but not what was asked for."""

_FENCE = re.compile(r"^```(?:json)?[ \t]*\n(.*)\n[ \t]*```$", re.DOTALL | re.IGNORECASE)


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a JSON Schema (2020-12) itself, or ``None``."""
    if _deeper_than(MOST_DEPTH, schema):
        return f"it is nested more than {MOST_DEPTH} deep: reduce the nesting"
    return _fault(json.dumps(schema, sort_keys=True))


def check_json(raw: str, *, truncated: bool, schema: Mapping[str, Any]) -> Findings:
    """The rubric of JSON.

    Format: it holds to ``schema``. Completeness: no required field is missing, and the token
    limit did not end it: what parses all the same was closed and lacks its rest. Coherence: the
    required fields say something: no string is empty, and of several lists at least one is not;
    a schema that allows emptiness in so many words (``minLength`` or ``minItems`` 0) is obeyed.
    What cannot be parsed is a veto.
    """
    text = raw.strip()
    if not text:
        return nothing_said()
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_constant)
        answer = _canonical(value)
    except (ValueError, RecursionError) as error:
        return _unparseable(text, error, truncated)
    faults, missing = _violations(value, schema)
    cut = ("the token limit cuts it off",) if truncated else ()
    hollow = tuple(_hollow(value, schema))
    wrapping = ("the JSON came inside a code fence",) if fenced else ()
    empty = tuple(f"{name} is required but says nothing" for name in hollow)
    return Findings(
        answer=answer,
        format=0.0 if faults else UNWRAPPED if fenced else 1.0,
        completeness=0.0 if missing or truncated else 1.0,
        coherence=0.0 if hollow else 1.0,
        issues=(*wrapping, *cut, *faults[:MOST_ISSUES], *empty[:MOST_ISSUES]),
    )


def _deeper_than(most: int, value: object) -> bool:
    level: list[Any] = [value]
    for _ in range(most):
        inner = [one.values() if isinstance(one, Mapping) else one for one in level]
        level = [v for part in inner for v in part if isinstance(v, Mapping | list | tuple)]
    return bool(level)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _canonical(value: object) -> str:
    """Sorted keys, no blanks; characters as they are unless UTF-8 cannot hold them."""
    for ascii_only in (False, True):
        text = json.dumps(
            value,
            ensure_ascii=ascii_only,
            allow_nan=False,
            separators=(",", ":"),
            sort_keys=True,
        )
        if text.isascii() or text.encode(errors="ignore").decode() == text:
            break
    return text


def _unparseable(text: str, error: Exception, truncated: bool) -> Findings:
    if refuses(text):
        veto = "the model refuses"
    elif truncated:
        veto = f"the token limit cuts the JSON off: {error}"
    else:
        veto = f"not JSON: {error}"
    return Findings(format=0.0, completeness=0.0, coherence=0.0, vetoes=(veto,))


def _violations(value: object, schema: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """How ``value`` breaks its schema, in words, and whether a required field is missing."""
    own_fault = schema_fault(schema)
    if own_fault is not None:
        return (f"its schema is no JSON Schema: {own_fault}",), False
    try:
        errors = list(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    except (Unresolvable, RecursionError) as error:
        return (f"its schema cannot be applied: {error}",), False
    missing = any(error.validator == "required" for error in errors)
    return tuple(_in_words(error) for error in errors), missing


def _in_words(error: ValidationError | SchemaError) -> str:
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.path)
    return f"{place.lstrip('.')}: {error.message}"[:200] if place else error.message[:200]


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    # An empty registry: a schema never makes a worker fetch what it refers to.
    return Draft202012Validator(json.loads(schema), registry=Registry())


@lru_cache(maxsize=256)
def _fault(schema: str) -> str | None:
    try:
        Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as error:
        return _in_words(error)
    return None


def _hollow(value: object, schema: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """The required strings that are empty, and the lists if all required ones are."""
    if not isinstance(value, dict):
        return
    properties = schema.get("properties", {})
    lists = []
    for name in schema.get("required", ()):
        inner, shape = value.get(name), properties.get(name, {})
        if not isinstance(shape, dict):
            continue
        if isinstance(inner, str) and not inner.strip() and shape.get("minLength") != 0:
            yield f"{place}{name}"
        elif isinstance(inner, list) and shape.get("minItems") != 0:
            lists.append((f"{place}{name}", inner))
        yield from _hollow(inner, shape, f"{place}{name}.")
    if not any(inner for _, inner in lists):
        yield from (name for name, _ in lists)
