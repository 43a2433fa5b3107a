"""The messages of a chat as a prompt: the constant part first, the conversation last."""

from __future__ import annotations

import json
from dataclasses import dataclass

from producers.openai_faults import RequestFault, as_list, as_mapping, as_text, one_of

CONSTANT = ("system", "developer")
ROLES = (*CONSTANT, "user", "assistant", "tool")
TEXTS = ("text", "input_text", "output_text", "refusal")
"""Types of content parts that are words."""
GOES_ON = "A conversation follows. Write the assistant's next message, and nothing else."


@dataclass(frozen=True)
class Asked:
    """A chat as the two parts of a prompt."""

    system: str
    prompt: str
    is_conversation: bool = False
    """Whether ``prompt`` is several messages written out."""


def rendered(messages: object) -> Asked:
    """The messages as a prompt.

    System and developer messages in front are its constant part. One message of the user is the
    rest as it stands; a conversation is written out, each message under the name of who said it,
    so that a longer one begins with all of a shorter one's text.

    Raises:
        RequestFault: something in them is not text, or nobody asks anything.
    """
    said = [_message(one, f"messages[{i}]") for i, one in enumerate(as_list(messages, "messages"))]
    front = next((i for i, (role, _) in enumerate(said) if role not in CONSTANT), len(said))
    system = "\n\n".join(text for _, text in said[:front] if text)
    rest = [(role, text) for role, text in said[front:] if text]
    if not rest:
        raise RequestFault("messages", "hold no question: add a message of role user")
    if len(rest) == 1 and rest[0][0] == "user":
        return Asked(system, rest[0][1])
    turns = "\n\n".join(f"{role.capitalize()}: {text}" for role, text in rest)
    return Asked(f"{system}\n\n{GOES_ON}" if system else GOES_ON, turns, True)


def _message(given: object, param: str) -> tuple[str, str]:
    message = as_mapping(given, param)
    role = one_of(message.get("role"), f"{param}.role", ROLES)
    for name in ("audio", "function_call"):
        if message.get(name) is not None:
            raise RequestFault(f"{param}.{name}", "is not served: drop it")
    text = _content(message.get("content"), f"{param}.content")
    if message.get("tool_calls"):
        calls = as_list(message["tool_calls"], f"{param}.tool_calls")
        lines = [_call(one, f"{param}.tool_calls[{i}]") for i, one in enumerate(calls)]
        text = "\n".join([text, *lines] if text else lines)
    elif not text.strip() and role == "user":
        raise RequestFault(f"{param}.content", "is empty: ask something")
    return role, text


def _content(given: object, param: str) -> str:
    if given is None:
        return ""
    if isinstance(given, str):
        return as_text(given, param)
    return "\n".join(_part(part, f"{param}[{i}]") for i, part in enumerate(as_list(given, param)))


def _part(given: object, param: str) -> str:
    part = as_mapping(given, param)
    kind = one_of(part.get("type"), f"{param}.type", TEXTS)
    name = "refusal" if kind == "refusal" else "text"
    return as_text(part.get(name), f"{param}.{name}")


def _call(given: object, param: str) -> str:
    call = as_mapping(given, param)
    function = as_mapping(call.get("function"), f"{param}.function")
    name = as_text(function.get("name"), f"{param}.function.name")
    return json.dumps({"name": name, "arguments": _arguments(function.get("arguments"))})


def _arguments(given: object) -> object:
    """Arguments come as JSON within a string; what is none stays the string that it is."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        return given
