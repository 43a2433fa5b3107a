"""Schemas for services that take objects alone: anything else goes inside one, and comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

INSIDE = "answer"
"""The one property of the object that was put around a schema."""
SHARED = ("$defs", "definitions")
"""Stay at the top, where references look for them."""
ALTERNATIVES = frozenset({"anyOf", "oneOf", "allOf", "enum", "not"})
"""Neither OpenAI nor Anthropic takes them at the top of a schema."""


def is_object(schema: Mapping[str, Any]) -> bool:
    """Whether a schema says at its top that a value is an object, and nothing else about it."""
    return schema.get("type") == "object" and not schema.keys() & ALTERNATIVES


def as_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema itself if it is an object's, else that of an object with one such property."""
    if is_object(schema):
        return dict(schema)
    left_out = {*SHARED, "$schema", "$id"}
    inner = {key: _moved(value, key) for key, value in schema.items() if key not in left_out}
    shared = {key: _moved(schema[key], key) for key in SHARED if key in schema}
    return {
        "type": "object",
        "properties": {INSIDE: inner},
        "required": [INSIDE],
        "additionalProperties": False,
        **shared,
    }


def taken_out(raw: str, schema: Mapping[str, Any]) -> str:
    """The JSON that was asked for, out of the object that ``as_object`` put around it.

    What came without that object, or is no JSON, stays as it is: the check judges it.
    """
    if is_object(schema):
        return raw
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    if not isinstance(found, dict) or found.keys() != {INSIDE}:
        return raw
    return json.dumps(found[INSIDE])


def _moved(value: Any, key: str = "") -> Any:
    """A part of a schema, its references to the whole turned to where the whole now is."""
    if isinstance(value, dict):
        return {name: _moved(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_moved(part) for part in value]
    if key != "$ref" or not isinstance(value, str) or not value.startswith("#"):
        return value
    stays = value.startswith(tuple(f"#/{name}/" for name in SHARED))
    return value if stays else f"#/properties/{INSIDE}{value[1:]}"
