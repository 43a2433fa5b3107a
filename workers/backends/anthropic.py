"""Claude through Anthropic's own SDK. It never retries by itself: the ledger does, on record."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import anthropic

from config.catalog import Model, Provider
from config.errors import BackendError, ConfigurationError
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.bounds import most_cost

ANSWER_TOOL = "answer"
CHOICE_TOKENS = 30
AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
REFUSALS = frozenset({401, 402, 403, 408})
"""Statuses below 500 that the provider would give to any request."""
QUOTA = re.compile(
    r"insufficient.quota|credit balance|usage limit|(?<![.'\"`\w])(billing|quota)", re.IGNORECASE
)
"""Not where a fault quotes a field of the request, such as ``properties.quota``."""


class AnthropicBackend:
    """The Messages API for one model."""

    capabilities = Capabilities(local=False, probabilities=False)

    def __init__(self, name: str, model: Model, provider: Provider | None, slots: int) -> None:
        self._model = model
        self._remote = model.remote_name or name
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="anthropic")
        try:
            self._client = anthropic.Anthropic(
                base_url=_base_url(provider),
                max_retries=0,
                timeout=model.timeout_s,
            )
        except anthropic.AnthropicError as error:
            raise ConfigurationError(f"anthropic: {error}; set ANTHROPIC_API_KEY") from None

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """All requests side by side, as many at once as the lane has slots."""
        waiting = [self._pool.submit(self._ask, request) for request in requests]
        for done in as_completed(waiting):
            yield done.result()

    def most_micros(self, request: Request) -> int:
        """The most that a call can cost, in micro-dollars."""
        texts = [request.system, _question(request)]
        if isinstance(request.output, JsonOutput):
            texts.append(json.dumps(request.output.json_schema))
        return most_cost(self._model.price, tuple(texts), _bound(request))

    def close(self) -> None:
        """End the connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _ask(self, request: Request) -> Completion:
        start = time.monotonic()
        try:
            message = self._client.messages.create(**self._call(request))
        except anthropic.APITimeoutError:
            error = BackendError(
                f"no answer within {self._model.timeout_s:g} s",
                unknown_charge_micros=self.most_micros(request),
                outage=True,
            )
        except anthropic.APIStatusError as status:
            error = _status_error(status)
        except anthropic.APIConnectionError as broken:
            error = _connection_error(broken, self.most_micros(request))
        else:
            return self._completion(request, message, time.monotonic() - start)
        return Completion(id=request.id, error=error, inference_s=time.monotonic() - start)

    def _call(self, request: Request) -> dict[str, Any]:
        output, sampling = request.output, request.sampling
        call: dict[str, Any] = {
            "model": self._remote,
            "max_tokens": _bound(request),
            "messages": [{"role": "user", "content": _question(request)}],
        }
        if self._model.sampling is not None:
            # The SDK has no argument for it any more, and newer models refuse it; the API still
            # takes it for models whose catalog entry asks for a sampling of its own.
            call["extra_body"] = {"temperature": min(sampling.temperature, 1.0)}
        if request.system:
            call["system"] = request.system
        # A stop of blanks alone is refused by the API.
        stops = [stop for stop in sampling.stops if stop.strip()]
        if isinstance(output, JsonOutput):
            call["tools"] = [{"name": ANSWER_TOOL, "input_schema": output.json_schema}]
            call["tool_choice"] = {"type": "tool", "name": ANSWER_TOOL}
        elif stops:
            call["stop_sequences"] = stops
        return call

    def _completion(self, request: Request, message: Any, seconds: float) -> Completion:
        usage = message.usage
        cached = usage.cache_read_input_tokens or 0
        written = usage.cache_creation_input_tokens or 0
        price = self._model.price
        return Completion(
            id=request.id,
            raw=_text(message.content),
            tokens_in=usage.input_tokens + cached + written,
            tokens_out=usage.output_tokens,
            tokens_cached=cached,
            inference_s=seconds,
            cost_micros=price.micros(usage.input_tokens, usage.output_tokens, cached, written),
            truncated=message.stop_reason == "max_tokens",
        )


def _base_url(provider: Provider | None) -> str | None:
    if provider is None:
        return None
    named = os.environ.get(provider.base_url_env) if provider.base_url_env else None
    return named or provider.base_url


def _bound(request: Request) -> int:
    is_choice = isinstance(request.output, ChoiceOutput)
    return CHOICE_TOKENS if is_choice else request.sampling.max_tokens


def _question(request: Request) -> str:
    if isinstance(request.output, ChoiceOutput):
        labels = ", ".join(request.output.labels)
        return f"{request.prompt}\n\nReply with exactly one of: {labels}. Nothing else."
    return request.prompt


def _text(blocks: Sequence[Any]) -> str:
    parts = []
    for block in blocks:
        if block.type == "tool_use":
            return json.dumps(block.input)
        if block.type == "text":
            parts.append(block.text)
    return "".join(parts)


def _status_error(error: anthropic.APIStatusError) -> BackendError:
    wish = error.response.headers.get("retry-after")
    try:
        retry_after = float(wish) if wish is not None else None
    except ValueError:
        retry_after = None
    status = error.status_code
    quota = status == 402 or (status in (400, 403, 429) and QUOTA.search(str(error)) is not None)
    return BackendError(
        f"HTTP {status}: {_first_line(error)}",
        retryable=status in AGAIN and not quota,
        retry_after_s=retry_after,
        outage=quota or status in REFUSALS or status >= 500,
        quota=quota,
    )


def _connection_error(error: anthropic.APIConnectionError, most: int) -> BackendError:
    # A connection that was never made cannot have been billed; one that broke may have been.
    never_made = "Connect" in type(error.__cause__).__name__
    return BackendError(
        f"connection failed: {error.__cause__ or error}",
        unknown_charge_micros=None if never_made else most,
        outage=True,
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300]
