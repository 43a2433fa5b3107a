"""Whatever goes wrong, as an HTTP status with an error in OpenAI's shape."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from config.errors import InputError, StackError, UptierError
from config.secrets import redact
from producers.openai_chat import failure_of
from producers.openai_faults import RequestFault, error_object
from routing.decision import Settled

log = logging.getLogger(__name__)

LATER_S = 1
"""After how long a client may try again what was turned away for want of room."""
NOT_FOUND = ("model_not_found",)
FINAL = {"x-should-retry": "false"}
"""OpenAI's clients repeat 409, 429 and 5xx by themselves, unless they are told not to."""


class Fault(UptierError):
    """A request that ends with an HTTP status and an error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": error_object(redact(message), param=param, code=code, kind=kind)}
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The answer that tells it."""
        return JSONResponse(self.body, self.status, self.headers)


def fault_of(error: Exception) -> Fault:
    """Any exception as what a client is told; what nobody foresaw is logged and not told."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, RequestFault):
        status = 404 if error.code in NOT_FOUND else 400
        return Fault(status, str(error), code=error.code, param=error.param)
    if isinstance(error, InputError):
        return Fault(400, str(error), code="invalid_value")
    if isinstance(error, StackError):
        return unavailable(str(error))
    if isinstance(error, DataError):  # PostgreSQL takes no NUL, be it in an id that is looked up
        return Fault(400, "a value is none that the ledger can hold", code="invalid_value")
    if isinstance(error, DBAPIError | PoolTimeout):
        return unavailable("the ledger does not answer; see `uptier status`")
    log.error("a request failed by a fault of our own", exc_info=error)
    return Fault(500, "a fault of the gateway; see its log", code="internal_error",
                 kind="server_error", headers=FINAL)  # fmt: skip


def fault_of_settled(settled: Settled, headers: Mapping[str, str]) -> Fault | None:
    """What a client is told of a decision that ended without an answer; ``None`` for others."""
    failure = failure_of(settled)
    if failure is None:
        return None
    status, error = failure
    return Fault(status, error["message"] or f"it ended as {settled.status.value}",
                 code=error["code"], kind=error["type"], headers={**headers, **FINAL})  # fmt: skip


def unavailable(message: str) -> Fault:
    """Nothing can be answered now; it may be tried again."""
    return Fault(503, message, code="unavailable", kind="server_error",
                 headers={"retry-after": str(LATER_S)})  # fmt: skip


def fault_of_field(error: ValidationError, place: str) -> RequestFault:
    """The first fault of a validation, under the name of the request's field."""
    first = error.errors()[0]
    parts: list[Any] = [place, *first["loc"]] if place else list(first["loc"])
    param = ".".join(str(part) for part in parts) or "body"
    words = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return RequestFault(param, "is not known: drop it", code="unknown_parameter")
    value = first.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
    return RequestFault(param, f"{words}{shown}")
