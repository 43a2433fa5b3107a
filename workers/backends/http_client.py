"""JSON over HTTP for servers without an SDK, and bounds that hold for every server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from config.errors import BackendError
from workers.backends.http_errors import codes_of, refused, unanswered, unreadable
from workers.backends.http_provider import CHECK_TIMEOUT_S, Access, judge_look
from workers.backends.http_stream import objects

MOST_BYTES = 32 << 20
"""Of one answer; what is longer is broken off."""
LONGEST_SILENCE_S = 900.0
"""Between two lines of a stream: hashing 40 GB on a slow disk says nothing for minutes."""
UNREADABLE = (httpx2.HTTPError, httpx2.StreamError, LookupError, TypeError, ValueError)
"""What a call raises; the last three where a 200 does not hold what it should."""


def options(reached: Access) -> dict[str, Any]:
    """Arguments of an ``httpx2.Client``, whoever makes it.

    What is local takes neither a proxy from the environment nor a redirection, either of which
    could carry prompts away.
    """
    wide = not reached.local
    return {
        "trust_env": wide,
        "follow_redirects": wide,
        "event_hooks": {"response": [_bound]},
    }


def translated(
    error: Exception, protocol: str, most_micros: int, timeout_s: float
) -> tuple[int | None, BackendError]:
    """The status, if there was one, and the meaning of a failed call."""
    if isinstance(error, httpx2.HTTPStatusError):
        response = error.response
        said, codes = _said(response)
        return response.status_code, refused(response.status_code, said, response.headers, codes)
    if isinstance(error, httpx2.HTTPError | httpx2.StreamError):
        timed_out = isinstance(error, httpx2.TimeoutException)
        return None, unanswered(error, most_micros, timeout_s, timed_out=timed_out)
    return None, unreadable(protocol, error, most_micros)


class JsonClient:
    """Asks one server; every method raises one of ``UNREADABLE``."""

    def __init__(self, reached: Access, timeout_s: float) -> None:
        headers = {"authorization": f"Bearer {reached.key}"} if reached.key else {}
        self._reached = reached
        self._place: dict[str, Any] = {"base_url": reached.url or "", "headers": headers}
        self._client = httpx2.Client(**self._place, timeout=timeout_s, **options(reached))

    def get(self, path: str, timeout_s: float) -> dict[str, Any]:
        """The object at a path."""
        return _object(self._client.get(path, timeout=timeout_s))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The object that answers ``body``."""
        return _object(self._client.post(path, json=body))

    @contextmanager
    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
        """The objects of an answer as they come; leaving the block ends the call."""
        with self._client.stream("POST", path, json=body) as response:
            if not response.is_success:
                response.read()
                response.raise_for_status()
            yield objects(response.iter_lines())

    @contextmanager
    def lines(self, path: str, body: dict[str, Any]) -> Iterator[Iterator[str]]:
        """The lines of an answer as they come, however many; none for 15 minutes is an error."""
        unbounded = options(self._reached) | {"event_hooks": {}}
        with (
            httpx2.Client(**self._place, timeout=LONGEST_SILENCE_S, **unbounded) as client,
            client.stream("POST", path, json=body) as response,
        ):
            if response.status_code >= 400:
                response.read()
                response.raise_for_status()
            yield response.iter_lines()

    def look(self, path: str, protocol: str) -> dict[str, Any] | None:
        """The object at a path that costs nothing, at a worker's start; ``None`` with a warning.

        Raises:
            ConfigurationError: the server refuses the key.
        """
        try:
            return self.get(path, CHECK_TIMEOUT_S)
        except UNREADABLE as error:
            judge_look(self._reached, *translated(error, protocol, 0, CHECK_TIMEOUT_S))
            return None

    def close(self) -> None:
        """End the connections; may be called twice."""
        self._client.close()


class _Bounded(httpx2.SyncByteStream):
    """A body that is broken off where it is longer than any answer."""

    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        seen = 0
        for chunk in self._stream:
            seen += len(chunk)
            if seen > MOST_BYTES:
                raise httpx2.ReadError(f"the answer has more than {MOST_BYTES >> 20} MiB")
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _bound(response: httpx2.Response) -> None:
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _Bounded(response.stream)


def _object(response: httpx2.Response) -> dict[str, Any]:
    response.raise_for_status()
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} instead of an object")
    return found


def _said(response: httpx2.Response) -> tuple[str, frozenset[str]]:
    """The server's own words for its refusal, and its codes."""
    try:
        body = response.json()
    except ValueError:
        return response.text, frozenset()
    error = body.get("error", body) if isinstance(body, dict) else body
    said = str(error.get("message", error) if isinstance(error, dict) else error)
    return said, codes_of(body)
