"""Claude through Anthropic's own SDK. It never retries by itself: the ledger does, on record."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import anthropic

from config.catalog import Model, Provider
from routing.decision import JsonOutput, TextOutput
from workers.backends import http_provider
from workers.backends.anthropic_errors import UNREADABLE, broken_off, translated
from workers.backends.anthropic_stream import Draft, Usage
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.bounds import most_cost
from workers.backends.http_client import options
from workers.backends.http_pool import SideBySide
from workers.backends.http_provider import CHECK_TIMEOUT_S, Defaults, access, judge_look
from workers.backends.http_questions import (
    bound,
    cut,
    question,
    stopped,
    stops,
    texts,
    thinks,
)
from workers.backends.http_refusals import REFUSAL
from workers.backends.http_schema import as_object, taken_out
from workers.backends.http_stream import TORN, Writing, wants_pieces

ANSWER_TOOL = "answer"
DEFAULTS = Defaults("anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
ENDINGS = frozenset({"end_turn", "stop_sequence", "tool_use", "refusal"})
"""Whatever else ended an answer (its limit, the context, a pause) has cut it off."""
LONG_TOKENS = 1000
"""Texts that may become longer come as a stream, as do those that somebody hears."""
CHARS_PER_TOKEN = 3
"""Fewer than English has, so that no part is left unmarked that the cache would take."""


class AnthropicBackend(SideBySide):
    """The Messages API for one model."""

    def __init__(
        self, name: str, model: Model, provider: Provider | None, slots: int, *, key: str | None
    ) -> None:
        """Connect to nothing yet; ``slots`` calls may run at once.

        Raises:
            ConfigurationError: there is no key, or it or the base URL is malformed.
        """
        super().__init__(slots, "anthropic")
        self._model = model
        self._remote = model.remote_name or name
        self._access = access(model, provider, DEFAULTS, key)
        self.capabilities = Capabilities(self._access.local, probabilities=False, streaming=True)
        self._client = anthropic.Anthropic(
            api_key=key,
            base_url=self._access.url,
            max_retries=0,
            timeout=model.timeout_s,
            http_client=anthropic.DefaultHttpxClient(**options(self._access)),
        )

    def check(self) -> None:
        """Ask once, at no cost, whether the provider is there and knows the key.

        Raises:
            ConfigurationError: it refuses the key.
        """
        client = self._client.with_options(timeout=CHECK_TIMEOUT_S, max_retries=0)
        try:
            client.models.list(limit=1)
        except UNREADABLE as error:
            judge_look(self._access, *translated(error, 0, CHECK_TIMEOUT_S))

    def most_micros(self, request: Request) -> int:
        """The most that a call can cost, in micro-dollars."""
        return most_cost(self._model.price, texts(request), bound(request, self._model))

    def close(self) -> None:
        """End the connections; may be called twice."""
        super().close()
        self._client.close()

    def _ask(self, request: Request) -> Completion:
        start = time.monotonic()
        draft = Draft(Writing(request, self._model, local=self._access.local))
        call = self._call(request)
        try:
            if _is_long(request) or wants_pieces(request):
                return self._streamed(request, call, draft, start)
            message = self._client.messages.create(**call)
            return self._completion(request, message, time.monotonic() - start)
        except UNREADABLE as broken:
            if draft.begun:
                return self._torn(request, draft, broken, time.monotonic() - start)
            most, timeout_s = self.most_micros(request), self._model.timeout_s
            _, error = translated(broken, most, timeout_s)
        return Completion(id=request.id, error=error, inference_s=time.monotonic() - start)

    def _call(self, request: Request) -> dict[str, Any]:
        output, sampling = request.output, request.sampling
        call: dict[str, Any] = {
            "model": self._remote,
            "max_tokens": bound(request, self._model),
            "messages": [{"role": "user", "content": question(request)}],
        }
        call |= self._thinking()
        if self._model.sampling is not None and not thinks(self._model):
            # The SDK has no argument for it any more, and newer models refuse it; the API still
            # takes it for models whose catalog entry asks for a sampling of its own.
            call["extra_body"] = {"temperature": min(sampling.temperature, 1.0)}
        if request.system:
            call["system"] = self._system(request.system)
        # A stop of blanks alone is refused by the API.
        ends = [stop for stop in stops(request) if stop.strip()]
        if isinstance(output, JsonOutput):
            call["tools"] = [{"name": ANSWER_TOOL, "input_schema": as_object(output.json_schema)}]
            # Who thinks first may not be forced to a tool; who answers in words is checked for it.
            forced = {"type": "tool", "name": ANSWER_TOOL}
            call["tool_choice"] = {"type": "auto"} if thinks(self._model) else forced
        elif ends:
            call["stop_sequences"] = ends
        return call

    def _thinking(self) -> dict[str, Any]:
        """The switch of models that think unless told not to; others know none."""
        effort = self._model.reasoning_effort
        if effort is None:
            return {}
        if effort == "none":
            return {"thinking": {"type": "disabled"}}
        level = "low" if effort == "minimal" else effort
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": level}}

    def _system(self, text: str) -> str | list[dict[str, Any]]:
        """The constant part, marked for the cache where the catalog says that it is long enough.

        The mark costs nothing where the provider finds it too short after all.
        """
        least = self._model.cache_from_tokens
        if least is None or len(text) < least * CHARS_PER_TOKEN:
            return text
        return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]

    def _streamed(
        self, request: Request, call: dict[str, Any], draft: Draft, start: float
    ) -> Completion:
        with self._client.messages.create(**call, stream=True) as events:
            draft.read(events)
        if draft.stop_reason is None:
            raise EOFError(TORN)
        return self._written(request, draft, draft.stop_reason, time.monotonic() - start)

    def _torn(
        self, request: Request, draft: Draft, broken: Exception, seconds: float
    ) -> Completion:
        """What came of a stream that broke: whole if only its end is missing, else its bill.

        What was read is known; of what was written, only that the limit bounds it.
        """
        text, usage = draft.writing.text, draft.usage
        if draft.stop_reason is not None:
            return self._written(request, draft, draft.stop_reason, seconds)
        limit = bound(request, self._model)
        most = self._model.price.micros(usage.plain, limit, usage.cached, usage.written)
        return Completion(
            id=request.id,
            raw=text,
            tokens_in=usage.plain + usage.cached + usage.written,
            tokens_out=usage.out,
            tokens_cached=usage.cached,
            inference_s=seconds,
            truncated=True,
            error=broken_off(broken, most),
        )

    def _written(
        self, request: Request, draft: Draft, stop_reason: str, seconds: float
    ) -> Completion:
        text = draft.writing.text
        completion = self._answered(request, text, draft.usage, stop_reason, seconds)
        draft.writing.end(completion.raw)
        return completion

    def _completion(self, request: Request, message: Any, seconds: float) -> Completion:
        usage = Usage()
        usage.note(message.usage)
        return self._answered(request, _text(message.content), usage, message.stop_reason, seconds)

    def _answered(
        self, request: Request, raw: str, usage: Usage, stop_reason: str, seconds: float
    ) -> Completion:
        price = self._model.price
        whole = _whole(request, raw, stop_reason)
        return Completion(
            id=request.id,
            raw=whole,
            tokens_in=usage.plain + usage.cached + usage.written,
            tokens_out=usage.out,
            tokens_cached=usage.cached,
            inference_s=seconds,
            cost_micros=price.micros(usage.plain, usage.out, usage.cached, usage.written),
            truncated=stop_reason not in ENDINGS and not stopped(request, raw),
        )


def key_name(provider: Provider | None) -> str:
    """The name under which the provider's key is looked for."""
    return http_provider.key_name(provider, DEFAULTS) or ""


def _is_long(request: Request) -> bool:
    return isinstance(request.output, TextOutput) and request.sampling.max_tokens > LONG_TOKENS


def _whole(request: Request, raw: str, stop_reason: str) -> str:
    """The answer that was asked for, or the refusal that came in its place."""
    if stop_reason == "refusal":
        return REFUSAL
    if isinstance(request.output, JsonOutput):
        return taken_out(raw, request.output.json_schema)
    return cut(raw, stops(request)) if isinstance(request.output, TextOutput) else raw


def _text(blocks: Sequence[Any]) -> str:
    parts = []
    for block in blocks:
        if block.type == "tool_use":
            return json.dumps(block.input)
        if block.type == "text":
            parts.append(block.text)
    return "".join(parts)
