"""A decision as plain JSON, from programs that know nothing of Uptier's classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from config.catalog import Catalog
from config.errors import InputError
from routing.decision import Decision, Output, output_for

SHORT = frozenset({"choices", "schema", "text", "max_tokens"})
"""Ways to say what is asked for without an ``output``."""
FIELDS = frozenset(Decision.model_fields) | SHORT
PRIVATE = frozenset({"prompt", "system", "fallback", "expected"})
"""Fields whose values no message quotes: they may be long, and are nobody's business."""
LONGEST_QUOTE = 60
BROKEN = "holds half a character (a lone surrogate): correct its encoding"
_OUTPUT: TypeAdapter[Output] = TypeAdapter(Output)


def decision_from(given: object, catalog: Catalog, *, key: str | None = None) -> Decision:
    """A decision from JSON: the fields of :class:`Decision` by their names.

    What is asked for is said by ``output``, or in short by ``choices`` (labels), ``schema``, or
    ``text`` (true) with ``max_tokens``; without any of these it is the kind's own. ``key`` stands
    in where the JSON names none.

    Raises:
        InputError: names the field that is wrong, on one line.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"a decision must be a JSON object, not {type(given).__name__}")
    unknown = sorted(set(map(str, given)) - FIELDS)
    if unknown:
        raise InputError(f"{unknown[0]}: is no field of a decision: drop it")
    for name, value in given.items():
        if not can_be_kept(value):
            raise InputError(f"{name}: {BROKEN}")
    values = {name: value for name, value in given.items() if name not in SHORT}
    if key is not None and "key" not in values:
        values["key"] = key
    for name in ("kind", "prompt", "key"):
        if not isinstance(values.get(name), str):
            raise InputError(f"{name}: must be a string: give one")
    try:
        values["output"] = _output(given, values["kind"], catalog)
        return Decision.model_validate(values)
    except ValidationError as error:
        raise InputError(fault(error)) from None


def can_be_kept(value: object) -> bool:
    """Whether every text in a JSON value can be written as UTF-8, with no half of a character."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def fault(error: ValidationError) -> str:
    """The first fault of a validation on one line, with the field's name and no private value."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "decision"
    message = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    quotable = isinstance(value, str | int | float | bool) and first["type"] != "extra_forbidden"
    if not quotable or place.split(".")[0] in PRIVATE or len(str(value)) > LONGEST_QUOTE:
        return " ".join(f"{place}: {message}".split())
    return " ".join(f"{place}: {message} (got {value!r})".split())


def _output(given: Mapping[str, Any], kind: str, catalog: Catalog) -> Output:
    short = [name for name in ("choices", "schema", "text") if given.get(name)]
    if given.get("output") is not None:
        if short or given.get("max_tokens") is not None:
            raise InputError(f"{(*short, 'max_tokens')[0]}: output says it already: drop it")
        try:
            return _OUTPUT.validate_python(given["output"])
        except ValidationError as error:
            raise InputError(f"output.{fault(error)}") from None
    if len(short) > 1:
        raise InputError(f"{short[0]}: {short[1]} says something else: drop one of them")
    labels, schema, most = given.get("choices"), given.get("schema"), given.get("max_tokens")
    if labels is not None and not isinstance(labels, list):
        raise InputError("choices: must be a list of labels")
    if labels is not None and not all(isinstance(label, str) for label in labels):
        raise InputError("choices: every label must be a string")
    if schema is not None and not isinstance(schema, Mapping):
        raise InputError("schema: must be an object")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise InputError("max_tokens: must be a whole number from 1")
    return output_for(
        catalog,
        kind,
        labels=None if labels is None else tuple(labels),
        json_schema=None if schema is None else dict(schema),
        text=bool(given.get("text")),
        max_tokens=most,
    )
