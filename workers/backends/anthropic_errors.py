"""What a failed call of Anthropic's SDK means: worth a retry or not, billed or not, whose fault."""

from __future__ import annotations

import re

import anthropic

from config.errors import BackendError

AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
REFUSALS = frozenset({401, 402, 403, 408})
"""Statuses below 500 that the provider would give to any request."""
QUOTA = re.compile(
    r"insufficient.quota|credit balance|usage limit|(?<![.'\"`\w])(billing|quota)", re.IGNORECASE
)
"""Not where a fault quotes a field of the request, such as ``properties.quota``."""
MOST_CHARS = 300


def translated(error: Exception, most_micros: int, timeout_s: float) -> BackendError:
    """The failure of one call that could have cost ``most_micros`` micro-dollars at most."""
    if isinstance(error, anthropic.APIStatusError):
        return _status(error)
    # A connection that was never made cannot have been billed; one that broke may have been.
    never_made = "Connect" in type(error.__cause__).__name__
    charge = None if never_made else most_micros
    if isinstance(error, anthropic.APITimeoutError):
        said = f"no answer within {timeout_s:g} s"
    elif isinstance(error, anthropic.APIConnectionError):
        said = f"connection failed: {first_line(error.__cause__ or error)}"
    else:
        said = f"the answer is not one of the Messages API ({first_line(error)})"
    return BackendError(said, unknown_charge_micros=charge, outage=True)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:MOST_CHARS] if lines else type(error).__name__


def _status(error: anthropic.APIStatusError) -> BackendError:
    status = error.status_code
    quota = status == 402 or (status in (400, 403, 429) and QUOTA.search(str(error)) is not None)
    return BackendError(
        f"HTTP {status}: {first_line(error)}",
        retryable=status in AGAIN and not quota,
        retry_after_s=_wish(error),
        outage=quota or status in REFUSALS or status >= 500,
        quota=quota,
    )


def _wish(error: anthropic.APIStatusError) -> float | None:
    try:
        wish = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return wish if 0 <= wish < float("inf") else None
