"""What a failed call of Anthropic's SDK means: worth a retry or not, billed or not, whose fault."""

from __future__ import annotations

import anthropic
import httpx2

from config.errors import BackendError
from workers.backends.http_errors import codes_of, first_line, refused, unanswered, unreadable

PROTOCOL = "the Messages API"
UNREADABLE = (
    anthropic.AnthropicError,
    httpx2.HTTPError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
)
"""What the SDK and its answer raise: its client's own errors where a stream breaks off, the last
five where a 200 holds no message."""


def translated(
    error: Exception, most_micros: int, timeout_s: float
) -> tuple[int | None, BackendError]:
    """The status, if there was one, and the meaning of a call that could have cost so much."""
    if isinstance(error, anthropic.APIStatusError):
        status = error.status_code
        if status >= 400:
            codes = codes_of(error.body)
            return status, refused(status, str(error), error.response.headers, codes)
        return status, broken_off(error, most_micros)
    if isinstance(error, anthropic.APIConnectionError):
        timed_out = isinstance(error, anthropic.APITimeoutError)
        cause = error.__cause__ or error
        return None, unanswered(cause, most_micros, timeout_s, timed_out=timed_out)
    if isinstance(error, httpx2.HTTPError):
        timed_out = isinstance(error, httpx2.TimeoutException)
        return None, unanswered(error, most_micros, timeout_s, timed_out=timed_out)
    return None, unreadable(PROTOCOL, error, most_micros)


def broken_off(error: Exception, most_micros: int) -> BackendError:
    """A stream that ended in an error; what had been written by then is billed."""
    said = first_line(error.__cause__ or error)
    return BackendError(
        f"the answer broke off: {said}", unknown_charge_micros=most_micros or None, outage=True
    )
