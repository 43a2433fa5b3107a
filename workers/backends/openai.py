"""Every server that speaks the OpenAI protocol, through OpenAI's own SDK.

OpenAI, vLLM, llama-server, Ollama and Gemini; see ``openai_dialects`` for where they differ. The
SDK never retries by itself: the ledger does, on record.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import openai

from config.catalog import Dialect, Model, Provider
from config.errors import BackendError, ConfigurationError
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.bounds import most_cost
from workers.backends.http_client import options
from workers.backends.http_logprobs import Position, choose, position
from workers.backends.http_pool import SideBySide
from workers.backends.http_provider import CHECK_TIMEOUT_S, access, judge_look
from workers.backends.http_questions import bound, cut, stopped, stops, texts, thinks
from workers.backends.http_refusals import refusal
from workers.backends.http_schema import taken_out
from workers.backends.http_stream import TORN, Writing, wants_pieces
from workers.backends.openai_dialects import CUSTOMS, Customs, arguments
from workers.backends.openai_errors import UNREADABLE, translated

NO_KEY = "none"
"""Sent where the server asks for no key: the SDK wants one."""


@dataclass
class _Said:
    """An answer as far as it has come; ``reason`` is why it ended, once it has."""

    content: str = ""
    reason: str | None = None
    refusal: str = ""
    usage: Any = None
    logprobs: Any = None


class OpenAIBackend(SideBySide):
    """The chat completions API for one model."""

    def __init__(
        self, name: str, model: Model, provider: Provider | None, slots: int, *, key: str | None
    ) -> None:
        """Connect to nothing yet; ``slots`` calls may run at once.

        Raises:
            ConfigurationError: a key or URL is missing, or it is malformed.
        """
        super().__init__(slots, "openai")
        self._model = model
        self._remote = model.remote_name or name
        self._customs = customs(provider)
        self._logprobs = self._customs.logprobs and not thinks(model)
        self._access = access(model, provider, self._customs.defaults, key)
        if self._access.url is None:
            raise ConfigurationError(
                f"{self._access.name} needs an address: set base_url in "
                f"[providers.{self._access.name}]"
            )
        self._client = openai.OpenAI(
            api_key=key or NO_KEY,
            base_url=self._access.url,
            max_retries=0,
            timeout=model.timeout_s,
            http_client=openai.DefaultHttpxClient(**options(self._access)),
        )
        if self._customs is not CUSTOMS[Dialect.OPENAI]:
            # Read by the SDK from the environment, and nobody else's business.
            self._client.organization = self._client.project = None

    @property
    def capabilities(self) -> Capabilities:
        """Probabilities only as long as the server gives them."""
        return Capabilities(self._access.local, probabilities=self._logprobs, streaming=True)

    def check(self) -> None:
        """Ask once, at no cost, whether the provider is there and knows the key.

        Raises:
            ConfigurationError: it refuses the key.
        """
        try:
            self._client.with_options(timeout=CHECK_TIMEOUT_S, max_retries=0).models.list()
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
        call = arguments(request, self._model, self._remote, self._customs, logprobs=self._logprobs)
        try:
            if wants_pieces(request):
                return self._streamed(request, call, start)
            said = _whole_answer(self._client.chat.completions.create(**call))
            return self._completion(request, said, time.monotonic() - start)
        except UNREADABLE as broken:
            status, error = translated(broken, self.most_micros(request), self._model.timeout_s)
            error = self._without_logprobs(call, status, error)
        return Completion(id=request.id, error=error, inference_s=time.monotonic() - start)

    def _without_logprobs(
        self, call: dict[str, Any], status: int | None, error: BackendError
    ) -> BackendError:
        """A model that gives no log-probabilities says so; then it is asked without, on record."""
        if "logprobs" in call and status in (400, 403, 422) and "logprobs" in str(error):
            self._logprobs = False
            return BackendError(str(error), retryable=True)
        return error

    def _streamed(self, request: Request, call: dict[str, Any], start: float) -> Completion:
        writing = Writing(request, self._model, local=self._access.local)
        said = _Said()
        with self._client.chat.completions.create(
            **call, stream=True, stream_options={"include_usage": True}
        ) as chunks:
            for chunk in chunks:
                said.usage = chunk.usage or said.usage
                for choice in chunk.choices[:1]:
                    said.reason = choice.finish_reason or said.reason
                    said.refusal += getattr(choice.delta, "refusal", None) or ""
                    writing.add(choice.delta.content or "")
        if said.reason is None:
            raise ValueError(TORN)
        said.content = writing.text
        completion = self._completion(request, said, time.monotonic() - start)
        writing.end(completion.raw)
        return completion

    def _completion(self, request: Request, said: _Said, seconds: float) -> Completion:
        raw = said.content
        # What was filtered after its end is whole.
        ended = stopped(request, raw)
        filtered = said.reason == "content_filter" and not ended
        completion = Completion(
            id=request.id,
            raw=self._whole(request, raw),
            inference_s=seconds,
            truncated=said.reason == "length" and not ended,
            **self._bill(said.usage),
        )
        if said.refusal or filtered:
            return replace(completion, raw=refusal(said.refusal))
        if not isinstance(request.output, ChoiceOutput):
            return completion
        labels = request.output.labels
        scores = choose(labels, raw, _positions(said.logprobs))
        if scores is None:
            return completion
        return replace(
            completion,
            label=labels[scores.best],
            probabilities=scores.probabilities,
            # A closed choice leaves nothing outside the set, so its share is not known.
            mass=None if self._customs.closed_choice else scores.mass,
        )

    def _whole(self, request: Request, raw: str) -> str:
        """The answer that was asked for, out of what came."""
        if self._customs.strict and isinstance(request.output, JsonOutput):
            return taken_out(raw, request.output.json_schema)
        return cut(raw, stops(request))

    def _bill(self, usage: Any) -> dict[str, Any]:
        """Tokens and their price; a server that counts none is one that charges nothing."""
        if usage is None and not self._model.price.input:
            return {}
        details = usage.prompt_tokens_details
        cached = getattr(details, "cached_tokens", None) or 0
        written = getattr(details, "cache_write_tokens", None) or 0
        plain = max(0, usage.prompt_tokens - cached - written)
        tokens_out = usage.completion_tokens
        if self._customs.thoughts_apart:
            tokens_out = max(tokens_out, (usage.total_tokens or 0) - usage.prompt_tokens)
        return {
            "tokens_in": usage.prompt_tokens,
            "tokens_out": tokens_out,
            "tokens_cached": cached,
            "cost_micros": self._model.price.micros(plain, tokens_out, cached, written),
        }


def customs(provider: Provider | None) -> Customs:
    """How a provider's server speaks; OpenAI's own where none is named."""
    return CUSTOMS[provider.dialect if provider else Dialect.OPENAI]


def _whole_answer(said: Any) -> _Said:
    """An answer that came at once."""
    answer = said.choices[0]
    return _Said(
        content=answer.message.content or "",
        reason=answer.finish_reason,
        refusal=getattr(answer.message, "refusal", None) or "",
        usage=said.usage,
        logprobs=answer.logprobs,
    )


def _positions(logprobs: Any) -> list[Position]:
    return [
        position(one.token, one.logprob, [(top.token, top.logprob) for top in one.top_logprobs])
        for one in (logprobs.content if logprobs else None) or ()
    ]
