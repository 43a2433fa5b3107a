"""What is wrong with a request in OpenAI's format, with the name of the field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from config.errors import InputError
from routing.decision import MOST
from routing.raw import BROKEN, can_be_kept


class RequestFault(InputError):
    """A request that cannot be served; ``param`` is the field, as OpenAI's errors name it."""

    def __init__(self, param: str, message: str, *, code: str = "invalid_value") -> None:
        super().__init__(f"{param}: {message}")
        self.param = param
        self.code = code
        self._message = message

    def inside(self, place: str) -> RequestFault:
        """The same fault, where the request is a field of something else."""
        return RequestFault(f"{place}.{self.param}", self._message, code=self.code)


def error_object(
    message: str, *, param: str | None = None, code: str | None = None,
    kind: str = "invalid_request_error",
) -> dict[str, Any]:  # fmt: skip
    """An error as OpenAI's answers hold it under ``error``."""
    named = None if param is None else sendable(param)
    return {"message": sendable(message), "type": kind, "param": named, "code": code}


def sendable(text: str) -> str:
    """The text such that UTF-8 holds it: JSON's escapes can write half a character."""
    return text.encode("utf-8", "replace").decode()


def shown(value: object) -> str:
    """A value as a message quotes it: short, and on one line."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_mapping(value: object, param: str) -> Mapping[str, Any]:
    """The value, which has to be an object."""
    if not isinstance(value, Mapping):
        raise RequestFault(param, f"must be an object (got {shown(value)})", code="invalid_type")
    return value


def as_list(value: object, param: str) -> Sequence[Any]:
    """The value, which has to be a list with something in it."""
    if not isinstance(value, list) or not value:
        raise RequestFault(
            param, f"must be a list that is not empty (got {shown(value)})", code="invalid_type"
        )
    return value


def as_text(value: object, param: str) -> str:
    """The value, which has to be a string."""
    if not isinstance(value, str):
        raise RequestFault(param, f"must be a string (got {shown(value)})", code="invalid_type")
    if "\0" in value:
        raise RequestFault(param, "holds a NUL character: take it out")
    refuse_broken(value, param)
    return value


def refuse_broken(value: object, param: str) -> None:
    """Refuse what holds a text that nothing can keep."""
    if not can_be_kept(value):
        raise RequestFault(param, BROKEN)


def as_count(value: object, param: str, least: int = 1) -> int:
    """The value, which has to be a whole number."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        raise RequestFault(
            param, f"must be a whole number from {least} to {MOST:,} (got {shown(value)})"
        )
    return value


def as_number(value: object, param: str, least: float, most: float) -> float:
    """The value, which has to be a number between two others."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not least <= value <= most:  # type: ignore[operator]
        raise RequestFault(
            param, f"must be a number from {least:g} to {most:g} (got {shown(value)})"
        )
    return float(value)  # type: ignore[arg-type]


def one_of(value: object, param: str, known: Sequence[str]) -> str:
    """The value, which has to be one of these words."""
    if value not in known:
        raise RequestFault(param, f"{shown(value)} is not served: choose one of {', '.join(known)}")
    return str(value)
