"""JSON Schemas that somebody might ask with, at random and the worst that are known."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

LARGE = st.sampled_from((0, 1, 3, 40, 700, 2_000, 20_000, 100_000, 10**9))
NAMES = st.sampled_from(("a", "b", "root", "object", "string", "space", "a b", "é", '"', "$ref"))
PATTERNS = st.sampled_from((
    "^[a-z]{1,5}$", "^a{2000,}$", "^(ab|c){0,9000}$", "^(a*)*$", r"^\d{3}-\w+$", "^a|b$", ".*",
    "^[^x]+$", "^((a{1,99}){1,99}){1,99}$", "^(", "[", "^[A-Z]-[0-9]{4}$", "^$", "^(a|)+$",
))  # fmt: skip
REFS = st.sampled_from(("#", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/no", "http://x/y", 3))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
TYPES = st.sampled_from(("object", "array", "string", "number", "integer", "boolean", "null"))


def _words(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    named = st.dictionaries(NAMES, inner, max_size=4)
    several = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries({}, optional={
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True), "properties": named,
        "additionalProperties": inner, "items": inner, "prefixItems": several,
        "anyOf": several, "allOf": several, "oneOf": several, "$defs": named, "$ref": REFS,
        "enum": st.lists(VALUES, max_size=4) | st.integers(0, 3000).map(lambda n: list(range(n))),
        "const": VALUES, "pattern": PATTERNS, "required": st.lists(NAMES, unique=True, max_size=3),
        "minItems": LARGE, "maxItems": LARGE, "minLength": LARGE, "maxLength": LARGE,
        "format": st.sampled_from(("date", "uuid", "email")), "not": inner,
    })  # fmt: skip


SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.just({}), _words, max_leaves=12
).filter(lambda made: isinstance(made, dict))
TWICE: Any = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}] * 2}
"""Its readings double with every bracket."""


def deep(levels: int) -> Any:
    """Arrays within arrays."""
    made: Any = {"type": "string", "maxLength": 300}
    for _ in range(levels):
        made = {"type": "array", "items": made, "maxItems": 300}
    return made


WORST: tuple[Any, ...] = (
    {"type": "string", "maxLength": 20_000},
    {"type": "array", "maxItems": 100_000, "items": {"type": "string"}},
    {"type": "string", "minLength": 10**9},
    {"type": "string", "pattern": "^(ab){1,100000}$"},
    {"properties": {f"p{i}": {"type": "string", "maxLength": 500} for i in range(100)}},
    {"properties": {f"p{i}": {"type": "string"} for i in range(3000)}},
    {"enum": [f"word {i}" for i in range(5000)]},
    {"anyOf": [{"type": "string", "maxLength": 500}] * 500},
    {"$ref": "#"}, deep(30), TWICE,
)  # fmt: skip
