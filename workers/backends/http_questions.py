"""How a request is worded for a chat, and how its answer is bounded."""

from __future__ import annotations

import json
from collections.abc import Sequence

from config.catalog import Model
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.base import Request
from workers.backends.http_schema import as_object

CHOICE_TOKENS = 30


def question(request: Request) -> str:
    """The prompt; for a choice, with its labels and the wish for one of them alone."""
    if isinstance(request.output, ChoiceOutput):
        labels = ", ".join(request.output.labels)
        return f"{request.prompt}\n\nReply with exactly one of: {labels}. Nothing else."
    return request.prompt


def messages(request: Request) -> list[dict[str, str]]:
    """The constant part first, so that servers find it in their prefix cache."""
    said = [{"role": "user", "content": question(request)}]
    if request.system:
        said.insert(0, {"role": "system", "content": request.system})
    return said


def texts(request: Request) -> tuple[str, ...]:
    """All that is sent of a request, for the most it can cost."""
    parts = [request.system, question(request)]
    if isinstance(request.output, JsonOutput):
        parts.append(json.dumps(as_object(request.output.json_schema)))
    return tuple(parts)


def thinks(model: Model) -> bool:
    """Whether the model thinks before it answers."""
    return model.reasoning_effort not in (None, "none")


def bound(request: Request, model: Model) -> int:
    """The most tokens of the answer, with the thoughts of a model that thinks."""
    is_choice = isinstance(request.output, ChoiceOutput)
    return CHOICE_TOKENS if is_choice and not thinks(model) else request.sampling.max_tokens


def stops(request: Request) -> list[str]:
    """What ends a text. A choice is short by itself, and a stop could cut JSON in two."""
    if request.output.type != "text":
        return []
    return [stop for stop in request.sampling.stops if stop]


def cut(text: str, ends: Sequence[str]) -> str:
    """The text before the first of ``ends``, not counting those before any text.

    Servers take only so many stops; the others are found here.
    """
    start = len(text) - len(text.lstrip())
    found = [text.find(end, start) for end in ends]
    return text[: min((place for place in found if place >= 0), default=len(text))].strip()


def stopped(request: Request, raw: str) -> bool:
    """Whether a text had come to a stop before whatever else ended it."""
    return cut(raw, stops(request)) != raw.strip()
