"""A JSON Schema as a grammar can hold it: looser than the asker's, never stricter by a bound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any]

MOST_ENUM = 200
"""Values of an enum; each of more would be tried for every token of the vocabulary."""
MOST_PROPERTIES = 100
"""Properties of an object; the converter's time grows with the cube of the optional ones."""
MOST_CHARS = 100_000
"""Of rule names and literals together, reckoned before the grammar is made."""
MOST_FORKS = 64
"""Readings of one text that a grammar may have open; each costs its part of every token."""
_ROUNDS = 8
"""How often a reference is followed to see whether the readings multiply with the depth."""
ANYTHING: Schema = {"type": ["object", "array", "string", "number", "boolean", "null"]}
_TYPES = ("object", "array", "string", "number", "boolean", "null")
_FORMATS = frozenset({"date", "time", "date-time"} | {f"uuid{n}" for n in ("", *"12345")})

_ATOM = r"(?:[A-Za-z0-9 _:/@#,;=<>~!%&'-]|\[[A-Za-z0-9_@#%&][A-Za-z0-9 _.:/@#,%&-]*\])"
_TIMES = r"(?:[*+?]|\{\d{1,9}(?:,\d{0,9})?\})"
_PATTERN = re.compile(rf"\^(?:{_ATOM}{_TIMES}?|\({_ATOM}+(?:\|{_ATOM}+)*\){_TIMES}?)*\$", re.ASCII)


class TooLarge(ValueError):
    """A grammar of it would be larger, or have more readings, than is safe."""


def loosened(schema: object, most: int) -> Schema:
    """What of a valid schema llama.cpp's converter shall read; all it allows stays allowed.

    Repetitions of more than ``most`` are dropped, as are patterns that the converter would get
    wrong, enums and objects that are too large, and keywords that it does not know. References
    become definitions of their own, under names that meet no other rule's.

    Raises:
        TooLarge: the whole is too large all the same.
    """
    return _Loosening(schema, most).whole()


class _Loosening:
    def __init__(self, root: object, most: int) -> None:
        self._root, self._most = root, most
        self._names: dict[str, str] = {}
        self._chars = 0

    def whole(self) -> Schema:
        found = self._schema(self._root, 0)
        defs: Schema = {}
        while len(defs) < len(self._names):
            ref, name = list(self._names.items())[len(defs)]
            defs[name] = self._schema(_target(self._root, ref), len(name))
        if _forks(found, defs, _ROUNDS, {}) > MOST_FORKS:
            raise TooLarge("too many readings")
        # The converter does not look beside a reference: so it never stands beside the others.
        return {"anyOf": [found], "$defs": defs} if defs else found

    def _schema(self, given: object, path: int) -> Schema:
        self._count(path)
        if not isinstance(given, dict):
            return ANYTHING
        if "$ref" in given:
            return self._reference(given["$ref"])
        for word in ("oneOf", "anyOf"):
            if word in given:
                return {"anyOf": [self._schema(one, path + 2) for one in given[word]]}
        if len(given.get("allOf", ())) == 1 and "properties" not in given:
            return self._schema(given["allOf"][0], path)
        if "const" in given:
            return self._values([given["const"]])
        if "enum" in given:
            return self._values(given["enum"])
        if isinstance(given.get("type"), list):
            each = [self._schema({**given, "type": one}, path + 2) for one in given["type"]]
            return {"anyOf": each} if each else ANYTHING
        return self._typed(given, path)

    def _typed(self, given: Schema, path: int) -> Schema:
        match given.get("type") or _meant(given):
            case "object":
                return self._object(given, path)
            case "array":
                return self._array(given, path)
            case "string":
                return self._string(given)
            case "number" | "integer" | "boolean" | "null" as plain:
                return {"type": plain}
        return ANYTHING

    def _object(self, given: Schema, path: int) -> Schema:
        more = given.get("additionalProperties")
        asked = dict(given.get("properties", {}))
        if more is not False:
            asked |= {name: True for name in given.get("required", ()) if name not in asked}
        if len(asked) > MOST_PROPERTIES or (not asked and not isinstance(more, dict)):
            return {"type": "object"}
        found: Schema = {"type": "object", "required": list(given.get("required", ()))}
        found["properties"] = {
            name: self._schema(one, path + len(name) + 1) for name, one in asked.items()
        }
        if more is True or isinstance(more, dict) or "patternProperties" in given:
            found["additionalProperties"] = self._schema(
                True if "patternProperties" in given else more, path + 20
            )
        return found

    def _array(self, given: Schema, path: int) -> Schema:
        first, items = given.get("prefixItems"), given.get("items")
        if first and not items:
            each = [self._schema(one, path + 8) for one in first]
            return {"type": "array", "prefixItems": each}
        if first or items is None or items is False:
            return {"type": "array"}
        bounds = self._bounds(given, "minItems", "maxItems")
        return {"type": "array", "items": self._schema(items, path + 5), **bounds}

    def _string(self, given: Schema) -> Schema:
        pattern, form = given.get("pattern"), given.get("format")
        if pattern is not None and _PATTERN.fullmatch(pattern):
            times = [int(n) for n in re.findall(r"(?<=[{,])\d+", pattern)]
            if all(n <= self._most for n in times) and len(pattern) <= 1000:
                self._count(len(pattern) + 20 * sum(times))
                return {"type": "string", "pattern": pattern}
        if form in _FORMATS:
            return {"type": "string", "format": form}
        return {"type": "string", **self._bounds(given, "minLength", "maxLength")}

    def _bounds(self, given: Schema, least: str, greatest: str) -> Schema:
        kept = {
            word: int(given[word])
            for word in (least, greatest)
            if word in given and given[word] <= self._most
        }
        return {} if kept.get(least, 0) > kept.get(greatest, self._most) else kept

    def _values(self, values: list[Any]) -> Schema:
        self._count(len(str(values)))
        if not 0 < len(values) <= MOST_ENUM:
            return ANYTHING
        return {"enum": values}

    def _reference(self, ref: object) -> Schema:
        if not isinstance(ref, str) or _target(self._root, ref) is None:
            return ANYTHING
        name = self._names.setdefault(ref, f"reference-{len(self._names)}-")
        return {"$ref": f"#/$defs/{name}"}

    def _count(self, chars: int) -> None:
        self._chars += chars + 10
        if self._chars > MOST_CHARS:
            raise TooLarge("too many rules")


def _meant(given: Schema) -> str | None:
    """The type that a schema without one speaks of."""
    if "properties" in given or "additionalProperties" in given:
        return "object"
    if "items" in given or "prefixItems" in given:
        return "array"
    return "string" if "pattern" in given else None


def _target(root: object, ref: str) -> Any:
    """What a pointer into the schema itself points at; ``None`` if nothing."""
    if not ref.startswith("#") or ref[1:2] not in ("", "/"):
        return None
    found = root
    for step in unquote(ref[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _forks(schema: Schema, defs: Schema, rounds: int, known: dict[tuple[str, int], int]) -> int:
    """A bound of the readings that a grammar keeps open at once, as a text grows.

    Alternatives that can begin alike stay open together; through references they multiply with
    the depth of the text, so a loop that multiplies shows after a few rounds.
    """

    def inner(one: Schema) -> int:
        return _forks(one, defs, rounds, known)

    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if (name, rounds) not in known:
            known[name, rounds] = _forks(defs[name], defs, rounds - 1, known) if rounds else 1
        return known[name, rounds]
    if "anyOf" in schema:
        counted = [(set(_starts(one, defs, _ROUNDS)), inner(one)) for one in schema["anyOf"]]
        return max(sum(n for starts, n in counted if kind in starts) for kind in _TYPES)
    children = [*schema.get("properties", {}).values(), *schema.get("prefixItems", ())]
    children += [schema["items"]] if "items" in schema else []
    more = inner(schema["additionalProperties"]) if "additionalProperties" in schema else 0
    return max(map(inner, children), default=1) + more


def _starts(schema: Schema, defs: Schema, rounds: int) -> Iterator[str]:
    """The types of the values that a schema's grammar can begin."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from _starts(defs[name], defs, rounds - 1) if rounds else _TYPES
    elif "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from _starts(one, defs, rounds)
    elif "enum" in schema:
        yield from map(_type_of, schema["enum"])
    else:
        types = schema["type"]
        for one in types if isinstance(types, list) else [types]:
            yield "number" if one == "integer" else one


def _type_of(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case None:
            return "null"
        case str():
            return "string"
        case int() | float():
            return "number"
    return "object" if isinstance(value, dict) else "array"
