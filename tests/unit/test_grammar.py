"""What of a JSON Schema becomes a grammar, and that it never forbids what the schema allows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from config.errors import BackendError
from routing.structured import MOST_DEPTH, check_json, schema_fault
from tests.json_schemas import NAMES, VALUES, WORST, deep
from workers.engine.grammar import MOST_TEXT, grammar
from workers.engine.loosening import TooLarge, loosened

SMALL = st.sampled_from((0, 1, 2, 3, 30_000))


def _shapes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.dictionaries(NAMES, inner, max_size=2)
    several = st.lists(inner, min_size=1, max_size=2)
    more = {"required": st.lists(NAMES, max_size=1), "additionalProperties": inner}
    return (
        st.fixed_dictionaries({"type": st.just("object"), "properties": named}, optional=more)
        | st.fixed_dictionaries(
            {"type": st.just("array")},
            optional={"items": inner, "minItems": SMALL, "maxItems": SMALL, "prefixItems": several},
        )
        | st.fixed_dictionaries({"anyOf": several})
        | st.fixed_dictionaries({"oneOf": several})
        | st.fixed_dictionaries({"allOf": several})
        | st.fixed_dictionaries({"enum": st.lists(VALUES, min_size=1, max_size=2)})
    )


SHAPES = st.recursive(
    st.just(True)
    | st.sampled_from(("number", "integer", "boolean", "null")).map(lambda t: {"type": t})
    | st.fixed_dictionaries(
        {"type": st.sampled_from(("string", ["string", "null"]))},
        optional={
            "minLength": SMALL,
            "maxLength": SMALL,
            "pattern": st.sampled_from(("^[a-z]{0,9}$", "a|b", "^(a|b){0,30000}$")),
        },
    ),
    _shapes,
    max_leaves=5,
)


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(schema=SHAPES, value=VALUES, most=st.sampled_from((500, 20, 0)))
def test_what_a_schema_allows_is_never_forbidden(schema: Any, value: object, most: int) -> None:
    assume(Draft202012Validator(schema).is_valid(value))
    assert Draft202012Validator(loosened(schema, most)).is_valid(value)


@pytest.mark.parametrize("words", [{"maxLength": 2000}, {"minLength": 2000}, {"maxLength": 10**9}])
def test_a_string_with_a_large_bound_is_a_string(words: dict[str, int]) -> None:
    plain = grammar('{"type": "string"}')
    assert grammar(json.dumps({"type": "string", **words})) == plain


def test_bounds_that_llama_can_bear_are_kept() -> None:
    assert grammar('{"type": "string", "maxLength": 500}').count(")?") == 500
    pattern = '{"type": "string", "pattern": "^[A-Z]{2}-(x|y)$"}'
    assert 'root-1 root-1 "-" ("x" | "y")' in grammar(pattern)


@pytest.mark.parametrize("schema", WORST, ids=range(len(WORST)))
def test_the_worst_schemas_give_small_grammars(schema: Any) -> None:
    assert len(grammar(json.dumps(schema))) <= MOST_TEXT


def test_a_schema_whose_readings_would_multiply_is_held_by_the_check_alone() -> None:
    twice = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}] * 2}
    with pytest.raises(TooLarge):
        loosened(twice, 500)
    node = {"properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}}
    assert "reference-0-" in grammar(json.dumps(node))


@pytest.mark.parametrize(
    "pattern", ["^a|b$", "^.*$", "^[^x]$", r"^\d$", "a", "^(a*)*$", "^a{3000}$", '^"$']
)
def test_a_pattern_that_the_converter_gets_wrong_is_left_to_the_check(pattern: str) -> None:
    assert loosened({"type": "string", "pattern": pattern}, 500) == {"type": "string"}


def test_a_definition_may_be_called_like_a_property() -> None:
    person = {"type": "object", "properties": {"x": {"type": "string"}}}
    schema = {"properties": {"person": person, "b": {"$ref": "#/$defs/person"}},
              "$defs": {"person": {"enum": [1, 2]}}}  # fmt: skip
    assert 'reference-0- ::= "1" | "2"' in grammar(json.dumps(schema))


def test_a_wrong_schema_is_one_line_that_names_the_fault() -> None:
    for schema, fault in [
        ({"properties": {"a": {"items": [True]}}}, "properties.a.items"),
        ({"type": "no such type"}, "no such type"),
        ({"required": {"a": 1}}, "required"),
        (deep(MOST_DEPTH + 1), "nested more than 64 deep"),
        (deep(900), "nested more than 64 deep"),
    ]:
        with pytest.raises(BackendError, match=fault) as raised:
            grammar(json.dumps(schema))
        assert not raised.value.retryable
        assert "\n" not in str(raised.value)


def test_a_schema_may_be_nested_as_deep_as_is_said() -> None:
    assert schema_fault(deep(MOST_DEPTH - 1)) is None
    assert "reduce the nesting" in str(schema_fault(deep(MOST_DEPTH)))


def test_a_string_takes_no_line_breaks() -> None:
    assert r'[^"\\\x00-\x1F\x7F]' in grammar('{"type": "object"}')


def test_properties_come_in_the_order_of_the_schema() -> None:
    text = {"type": "string"}
    for names in (("reason", "action", "b"), ("b", "action", "reason")):
        schema = {"properties": dict.fromkeys(names, text), "required": sorted(names)}
        first, second, third = (f"{name}-kv" for name in names)
        expected = f'root ::= "{{" space {first} "," space {second} "," space {third} "}}" space'
        assert expected in grammar(json.dumps(schema)).splitlines()


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ({"type": "integer", "minimum": 5}, 4),
        ({"type": "number", "maximum": 1}, 1.5),
        ({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 2}, 0),
        ({"type": "string", "maxLength": 2000}, "x" * 2001),
        ({"type": "array", "maxItems": 1000, "items": {"type": "null"}}, [None] * 1001),
        ({"type": "string", "pattern": r"^\d+$"}, "twelve"),
    ],
)
def test_what_the_grammar_does_not_hold_the_quality_check_does(
    words: dict[str, Any], value: object
) -> None:
    schema = {"type": "object", "properties": {"a": words}, "required": ["a"]}
    plain = schema | {"properties": {"a": {"type": words["type"], **_inner(words)}}}
    assert grammar(json.dumps(schema)) == grammar(json.dumps(plain))
    found = check_json(json.dumps({"a": value}), truncated=False, schema=schema)
    assert found.format == 0.0
    assert found.issues[0].startswith("a: ")


def _inner(words: dict[str, Any]) -> dict[str, Any]:
    return {"items": words["items"]} if "items" in words else {}


def test_references_to_what_is_no_schema_allow_anything() -> None:
    for odd in (5, [], {"properties": []}, {"type": 5}, {"enum": 3}, {"items": "x"}):
        schema = {"type": "object", "properties": {"a": {"$ref": "#/odd"}}, "odd": odd}
        assert "value" in grammar(json.dumps(schema))
