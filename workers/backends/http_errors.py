"""What a failed call of a service means: worth a retry or not, billed or not, whose fault."""

from __future__ import annotations

import re
from collections.abc import Mapping

from config.errors import BackendError

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
REFUSALS = frozenset({401, 402, 403, 408})
"""Statuses below 500 that the provider would give to any request."""
QUOTA = re.compile(
    r"insufficient.quota|credit balance|usage limit|(?<![.'\"`\w])(billing|quota)", re.IGNORECASE
)
"""Not where a fault quotes a field of the request, such as ``properties.quota``."""
BAD_KEY = re.compile(r"API_KEY_INVALID|API key not valid", re.IGNORECASE)
"""What Gemini says with status 400 where others answer 401."""
SOON = re.compile(r"['\"]retryDelay['\"]: *['\"](\d+(?:\.\d+)?)s['\"]")
"""Gemini's own Retry-After, in seconds; it calls every rate limit a quota."""
MOST_CHARS = 300
LONGEST_WISH_S = 86_400.0
"""No provider is left alone for longer than a day, whatever it says."""


def refused(status: int, said: str, headers: Mapping[str, str]) -> BackendError:
    """A service's no: what its status, its words and its headers mean."""
    wish = _wish(headers, said)
    soon = status == 429 and SOON.search(said) is not None
    quota = not soon and (
        status == 402 or (status in (400, 403, 429) and QUOTA.search(said) is not None)
    )
    key = status == 400 and BAD_KEY.search(said) is not None
    return BackendError(
        f"HTTP {status}: {first_line(said) or 'no reason given'}",
        retryable=status in AGAIN and not quota,
        retry_after_s=wish,
        outage=quota or key or status in REFUSALS or status >= 500,
        quota=quota,
    )


def unanswered(
    cause: BaseException, most_micros: int, timeout_s: float, *, timed_out: bool
) -> BackendError:
    """No answer at all to a call that could have cost ``most_micros`` micro-dollars at most."""
    # A connection that was never made cannot have been billed; one that broke may have been.
    never_made = "Connect" in type(cause).__name__
    said = (
        f"no answer within {timeout_s:g} s"
        if timed_out
        else f"connection failed: {first_line(cause)}"
    )
    charge = None if never_made else most_micros or None
    return BackendError(said, unknown_charge_micros=charge, outage=True)


def unreadable(protocol: str, error: BaseException, most_micros: int) -> BackendError:
    """An answer that is none of its protocol; whoever sent it may have billed it."""
    return BackendError(
        f"the answer is not one of {protocol} ({first_line(error)})",
        unknown_charge_micros=most_micros or None,
        outage=True,
    )


def refuses_key(status: int | None, error: BackendError) -> bool:
    """Whether a refusal speaks of the key and not of the account's money."""
    if error.quota:
        return False
    return status in (401, 403) or (status == 400 and BAD_KEY.search(str(error)) is not None)


def first_line(error: BaseException | str) -> str:
    """The first line of what an error says, at most 300 characters."""
    lines = str(error).strip().splitlines()
    if lines:
        return lines[0][:MOST_CHARS]
    return "" if isinstance(error, str) else type(error).__name__


def _wish(headers: Mapping[str, str], said: str) -> float | None:
    """How many seconds the provider asks to be left alone."""
    soon = SOON.search(said)
    for text, scale in (
        (headers.get("retry-after-ms", ""), 1000),
        (headers.get("retry-after", ""), 1),
        (soon.group(1) if soon else "", 1),
    ):
        try:
            wish = float(text) / scale
        except ValueError:
            continue
        if 0 <= wish < float("inf"):
            return min(wish, LONGEST_WISH_S)
    return None
