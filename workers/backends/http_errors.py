"""What a failed call of a service means: worth a retry or not, billed or not, whose fault."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Set
from datetime import UTC
from email.utils import parsedate_to_datetime

from config.errors import BackendError

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
REFUSALS = frozenset({401, 402, 403, 408})
"""Statuses below 500 that the provider would give to any request."""
NO_MONEY = frozenset(
    {"insufficient_quota", "billing_error", "billing_hard_limit_reached", "billing_not_active"}
)
"""Codes and types with which OpenAI and Anthropic say that the account may spend no more."""
TOO_FAST = frozenset(
    {"rate_limit_exceeded", "rate_limit_error", "ratelimitreached", "too_many_requests"}
)
"""Those with which OpenAI, Anthropic and Azure say that it may go on in a moment."""
QUOTA = re.compile(
    r"insufficient.quota|credit balance|usage limit|(?<![.'\"`\w])(billing|quota)", re.IGNORECASE
)
"""Where no code tells. Not where a fault quotes a field of the request, as ``properties.quota``."""
URL = re.compile(r"(?:https?://|\b(?:[\w-]+\.)+[a-z]{2,}/)\S*", re.IGNORECASE)
"""Rate limits come with links to pages on billing and quotas."""
PASSING = re.compile(r"\b(?:retry|try again) (?:in|after) (?:about )?\d", re.IGNORECASE)
"""A time at which a limit is over, in words."""
BAD_KEY = re.compile(r"API_KEY_INVALID|API key not valid", re.IGNORECASE)
"""What Gemini says with status 400 where others answer 401."""
SOON = re.compile(r"['\"]retryDelay['\"]: *['\"](\d+(?:\.\d+)?)s['\"]")
"""Gemini's own Retry-After, in seconds; it calls every rate limit a quota."""
MOST_CHARS = 300
LONGEST_WISH_S = 86_400.0
"""No provider is left alone for longer than a day, whatever it says."""


def refused(
    status: int,
    said: str,
    headers: Mapping[str, str],
    codes: Set[str] = frozenset(),
    now: Callable[[], float] = time.time,
) -> BackendError:
    """A service's no: what its status, its codes, its headers and its words mean.

    ``now`` gives seconds since 1970; a date to wait for is reckoned from it where the answer has
    no date of its own.
    """
    asked = _wish(headers, now)
    soon = SOON.search(said)
    wish = float(soon.group(1)) if asked is None and soon else asked
    quota = _is_quota(status, said, codes, passing=wish is not None)
    key = status == 400 and BAD_KEY.search(said) is not None
    return BackendError(
        f"HTTP {status}: {first_line(said) or 'no reason given'}",
        retryable=status in AGAIN and not quota,
        retry_after_s=None if wish is None else min(wish, LONGEST_WISH_S),
        outage=quota or key or status in REFUSALS or status >= 500,
        quota=quota,
    )


def codes_of(body: object) -> frozenset[str]:
    """The codes and types in an error's body, in small letters, wherever providers put them."""
    if isinstance(body, list):
        return frozenset().union(*map(codes_of, body))
    if not isinstance(body, dict):
        return frozenset()
    own = (body.get(name) for name in ("code", "type", "status"))
    found = frozenset(code.casefold() for code in own if isinstance(code, str))
    return found | codes_of(body.get("error"))


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


def _is_quota(status: int, said: str, codes: Set[str], *, passing: bool) -> bool:
    """Whether the account's money is at an end, and not only its pace."""
    if status == 402:
        return True
    if status not in (400, 403, 429) or (status == 429 and passing):
        return False
    if codes & NO_MONEY:
        return True
    if status == 429 and (codes & TOO_FAST or PASSING.search(said)):
        return False
    return QUOTA.search(URL.sub(" ", said)) is not None


def _wish(headers: Mapping[str, str], now: Callable[[], float]) -> float | None:
    """How many seconds the provider asks to be left alone, in its headers."""
    for text, scale in (
        (headers.get("retry-after-ms", ""), 1000),
        (headers.get("retry-after", ""), 1),
    ):
        try:
            wish = float(text) / scale
        except ValueError:
            continue
        if 0 <= wish < float("inf"):
            return wish
    until = _date(headers.get("retry-after", ""))
    if until is None:
        return None
    told = _date(headers.get("date", ""))
    return max(0.0, until - (now() if told is None else told))


def _date(text: str) -> float | None:
    """An HTTP date (RFC 9110, 5.6.7) in seconds since 1970."""
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    # The oldest of the three forms names no zone: it is always GMT.
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
