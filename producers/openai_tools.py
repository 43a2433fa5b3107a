"""Functions that a chat may call: as a JSON schema for the answer, and back as tool calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from producers.openai_faults import (
    RequestFault,
    as_list,
    as_mapping,
    as_text,
    one_of,
    sendable,
    shown,
)
from routing.raw import can_be_kept
from routing.structured import schema_fault

CHOICES = ("none", "auto", "required")
NAME_CHARS = 64
MOST_TOOLS = 128
REFERENCES = "#/$defs/"
CALL = 'To call one, reply with JSON alone: {"name": ..., "arguments": {...}}.'
OR_WORDS = 'To answer in words instead, reply with {"content": "..."}.'


@dataclass(frozen=True)
class Tools:
    """What a chat may call: told to the model in ``system``, its answer held to ``schema``."""

    system: str
    schema: dict[str, Any]


def tools_of(body: Mapping[str, Any]) -> Tools | None:
    """The functions of a request; ``None`` where it has none, or forbids to call one.

    Raises:
        RequestFault: one is malformed, or the one that must be called is not among them.
    """
    if not body.get("tools"):
        if body.get("tool_choice") not in (None, "none", "auto"):
            raise RequestFault("tool_choice", "there is nothing to choose from: add tools")
        return None
    given = as_list(body["tools"], "tools")
    if len(given) > MOST_TOOLS:
        raise RequestFault("tools", f"at most {MOST_TOOLS} are served (got {len(given)})")
    found = [_function(one, f"tools[{i}]") for i, one in enumerate(given)]
    names = [one["name"] for one in found]
    if len(set(names)) != len(names):
        raise RequestFault("tools", "two have the same name: rename one")
    choice = body.get("tool_choice", "auto") or "auto"
    if choice == "none":
        return None
    if isinstance(choice, str):
        one_of(choice, "tool_choice", CHOICES)
        return Tools(_told(found, choice == "auto"), _schema(found, choice == "auto"))
    only = _chosen(choice, names)
    chosen = [one for one in found if one["name"] == only]
    return Tools(_told(chosen, False), _schema(chosen, False))


def calls_of(answer: str, decision_id: str) -> tuple[str | None, list[dict[str, Any]]]:
    """An answer that held to the schema: the words, or the calls, of a chat's message."""
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError):
        return answer, []
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        words = said.get("content") if isinstance(said, dict) else None
        return (sendable(words) if isinstance(words, str) else answer), []
    given = said.get("arguments", {})
    # Escaped where the model wrote half a character.
    arguments = json.dumps(given, ensure_ascii=not can_be_kept(given))
    function = {"name": sendable(said["name"]), "arguments": arguments}
    return None, [{"id": f"call_{decision_id}", "type": "function", "function": function}]


def _function(given: object, param: str) -> dict[str, Any]:
    tool = as_mapping(given, param)
    one_of(tool.get("type"), f"{param}.type", ("function",))
    function = as_mapping(tool.get("function"), f"{param}.function")
    name = as_text(function.get("name"), f"{param}.function.name")
    if not 0 < len(name) <= NAME_CHARS:
        raise RequestFault(f"{param}.function.name", f"must have 1 to {NAME_CHARS} characters")
    parameters = function.get("parameters") or {
        "type": "object", "properties": {}, "additionalProperties": False
    }  # fmt: skip
    place = f"{param}.function.parameters"
    found: dict[str, Any] = {"name": name, "parameters": as_mapping(parameters, place)}
    fault = schema_fault(found["parameters"])
    if fault is not None:
        raise RequestFault(place, f"is no JSON Schema: {fault}")
    if function.get("description"):
        found["description"] = as_text(function["description"], f"{param}.function.description")
    return found


def _chosen(given: object, names: Sequence[str]) -> str:
    choice = as_mapping(given, "tool_choice")
    one_of(choice.get("type"), "tool_choice.type", ("function",))
    function = as_mapping(choice.get("function"), "tool_choice.function")
    if function.get("name") not in names:
        raise RequestFault(
            "tool_choice.function.name",
            f"{shown(function.get('name'))} is not among the tools: choose one of "
            f"{', '.join(names)}",
        )
    return str(function["name"])


def _told(functions: Sequence[Mapping[str, Any]], words: bool) -> str:
    lines = [json.dumps(one, ensure_ascii=False, default=dict) for one in functions]
    ends = [CALL, OR_WORDS] if words else [CALL]
    return "\n".join(["You can call these functions:", *lines, " ".join(ends)])


def _schema(functions: Sequence[Mapping[str, Any]], words: bool) -> dict[str, Any]:
    shared: dict[str, Any] = {}
    forms = [_form(one, i, shared) for i, one in enumerate(functions)]
    if words:
        forms.append(_object({"content": {"type": "string"}}))
    whole = forms[0] if len(forms) == 1 else {"anyOf": forms}
    return whole | {"$defs": shared} if shared else whole


def _form(function: Mapping[str, Any], index: int, shared: dict[str, Any]) -> dict[str, Any]:
    parameters = dict(function["parameters"])
    own = parameters.pop("$defs", {})
    if isinstance(own, Mapping):
        # Each function's definitions under a name of their own, at the top, where the references
        # now look for them.
        shared |= {f"{index}.{name}": _turned(part, index) for name, part in own.items()}
    name = {"type": "string", "enum": [function["name"]]}
    return _object({"name": name, "arguments": _turned(parameters, index)})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _turned(value: Any, index: int, key: str = "") -> Any:
    """A part of a function's schema with its references turned to where they are now."""
    if isinstance(value, Mapping):
        return {name: _turned(part, index, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_turned(part, index) for part in value]
    if key == "$ref" and isinstance(value, str) and value.startswith(REFERENCES):
        return f"{REFERENCES}{index}.{value.removeprefix(REFERENCES)}"
    return value
