"""Types and defaults of settings, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

PLAIN = {
    str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Path: "path",
    Decimal: "dollars, as text", Any: "anything", NoneType: "nothing",
}  # fmt: skip
SIGNS = {
    annotated_types.Ge: ("ge", "≥"), annotated_types.Gt: ("gt", ">"),
    annotated_types.Le: ("le", "≤"), annotated_types.Lt: ("lt", "<"),
}  # fmt: skip
HOME = str(Path.home())


def shown_default(field: FieldInfo) -> str:
    """What a setting is where nobody sets it, as it would stand in TOML."""
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "made at the start"
    return _shown(field.default)


def _shown(value: object) -> str:
    if value is None:
        return "absent"
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_defaults=True)
        inner = ", ".join(f"{name} = {_toml(each)}" for name, each in given.items())
        return f"`{{ {inner} }}`" if inner else "its own defaults"
    return f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{n} = {_toml(v)}" for n, v in value.items()) + "}"
    told = str(value)
    told = f"~{told.removeprefix(HOME)}" if told.startswith(f"{HOME}/") else told
    return f'"{told}"'.replace("\n", "\\n")


def shown_type(annotation: Any, metadata: list[Any]) -> str:
    """What a setting may hold, in words, with its bounds; models are links to their sections."""
    bounds = " and ".join(_bounds(metadata))
    return f"{_kind(annotation)} {bounds}".strip()


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shown_type(inner[0], list(inner[1:]))
    if origin is Literal:
        return " or ".join(f"`{_toml(getattr(each, 'value', each))}`" for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in inner if each is not NoneType)
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return f"table of {_kind(inner[1])} by name"
    return _named(annotation)


def _named(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(f'`"{each.value}"`' for each in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return PLAIN.get(annotation, "text")


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for each in metadata:
        if isinstance(each, FieldInfo):
            yield from _bounds(each.metadata)
        for kind, (name, sign) in SIGNS.items():
            if isinstance(each, kind):
                yield f"{sign} {_toml(getattr(each, name))}"
        if isinstance(each, annotated_types.MinLen) and each.min_length > 1:
            yield f"(at least {each.min_length})"
        if isinstance(each, annotated_types.MaxLen):
            yield f"(at most {each.max_length})"
