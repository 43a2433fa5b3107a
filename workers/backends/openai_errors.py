"""What a failed call of OpenAI's SDK means."""

from __future__ import annotations

import openai

from config.errors import BackendError
from workers.backends.http_errors import codes_of, refused, unanswered, unreadable

PROTOCOL = "the chat completions API"
UNREADABLE = (openai.OpenAIError, LookupError, AttributeError, TypeError, ValueError)
"""What the SDK and its answer raise; the last four where a 200 holds no completion."""


def translated(
    error: Exception, most_micros: int, timeout_s: float
) -> tuple[int | None, BackendError]:
    """The status, if there was one, and the meaning of a call that could have cost so much."""
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        return status, refused(status, str(error), error.response.headers, codes_of(error.body))
    if isinstance(error, openai.APIConnectionError):
        timed_out = isinstance(error, openai.APITimeoutError)
        cause = error.__cause__ or error
        return None, unanswered(cause, most_micros, timeout_s, timed_out=timed_out)
    return None, unreadable(PROTOCOL, error, most_micros)
