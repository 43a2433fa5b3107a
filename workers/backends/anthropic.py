"""Claude through Anthropic's own SDK. It never retries by itself: the ledger does, on record."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any
from urllib.parse import urlsplit

import anthropic

from config.catalog import Model, Provider
from config.errors import ConfigurationError
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.anthropic_errors import translated
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.bounds import most_cost

ANSWER_TOOL = "answer"
CHOICE_TOKENS = 30
KEY = "ANTHROPIC_API_KEY"
BASE_URL = "ANTHROPIC_BASE_URL"
CHECK_TIMEOUT_S = 5.0
UNREADABLE = (anthropic.AnthropicError, AttributeError, TypeError, ValueError)
"""What the SDK and its answer raise; the last three where a 200 holds no message."""

log = logging.getLogger(__name__)


class AnthropicBackend:
    """The Messages API for one model."""

    capabilities = Capabilities(local=False, probabilities=False)

    def __init__(
        self, name: str, model: Model, provider: Provider | None, slots: int, *, key: str | None
    ) -> None:
        """Connect to nothing yet; ``slots`` calls may run at once.

        Raises:
            ConfigurationError: there is no key, or it or the base URL is malformed.
        """
        self._model = model
        self._remote = model.remote_name or name
        self._provider = model.provider or "anthropic"
        self._key_name = key_name(provider)
        if not key:
            raise ConfigurationError(f"{self._provider} needs a key: set {self._key_name}")
        if not (key.isascii() and key.isprintable()):
            raise ConfigurationError(
                f"the key in {self._key_name} has characters that no key has: correct it"
            )
        self._client = anthropic.Anthropic(
            api_key=key, base_url=_base_url(provider), max_retries=0, timeout=model.timeout_s
        )
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="anthropic")

    def check(self) -> None:
        """Ask once, at no cost, whether the provider is there and knows the key.

        A provider that is away is only warned of: it may be back before it is needed.

        Raises:
            ConfigurationError: it refuses the key.
        """
        client = self._client.with_options(timeout=CHECK_TIMEOUT_S, max_retries=0)
        try:
            client.models.list(limit=1)
        except UNREADABLE as error:
            found = translated(error, 0, CHECK_TIMEOUT_S)
            if getattr(error, "status_code", None) in (401, 403) and not found.quota:
                raise ConfigurationError(
                    f"{self._provider} refuses the key in {self._key_name}: correct it"
                ) from None
            log.warning(
                "%s at %s does not answer as it should: %s; look at the network, its base URL and "
                "its status page, calls are made all the same",
                self._provider, self._client.base_url.host, found,
            )  # fmt: skip

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
            return self._completion(request, message, time.monotonic() - start)
        except UNREADABLE as broken:
            error = translated(broken, self.most_micros(request), self._model.timeout_s)
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


def key_name(provider: Provider | None) -> str:
    """The name under which the provider's key is looked for."""
    return (provider.api_key_env if provider else None) or KEY


def _base_url(provider: Provider | None) -> str | None:
    """The provider's URL: from its own variable, from the catalog, or as the SDK finds it."""
    own = (provider.base_url_env if provider else None) or ""
    written = provider.base_url if provider else None
    place, url = own, os.environ.get(own)
    if not url:
        place, url = "base_url", written
    if not url:
        place, url = BASE_URL, os.environ.get(BASE_URL)
    if url and not _is_http(url):
        raise ConfigurationError(f"{place} = {url!r} is not an http or https URL: correct it")
    return url or None


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False


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
