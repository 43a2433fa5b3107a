"""Whether OpenAI can hold an answer to a schema word for word."""

from __future__ import annotations

from typing import Any

KNOWN = frozenset(
    {
        "$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum",
        "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maximum",
        "minItems", "minimum", "multipleOf", "pattern", "properties", "required", "title", "type",
    }
)  # fmt: skip
"""Keywords that strict schemas may have; others make OpenAI refuse the request."""
KINDS = frozenset({"type", "anyOf", "$ref"})
"""One of them says what a value is; an ``enum`` alone does not."""


def is_strict(schema: Any) -> bool:
    """Whether it is in OpenAI's subset: closed objects, every property required, known keywords.

    Any other schema is sent all the same, but without the promise that the answer holds to it.
    """
    if not isinstance(schema, dict) or not schema.keys() <= KNOWN or not schema.keys() & KINDS:
        return False
    properties = schema.get("properties", {})
    if schema.get("type") == "object" or properties:
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("required", ())) != set(properties):
            return False
    inner = [*properties.values(), *schema.get("anyOf", ()), *schema.get("$defs", {}).values()]
    if "items" in schema:
        inner.append(schema["items"])
    return all(is_strict(part) for part in inner)
