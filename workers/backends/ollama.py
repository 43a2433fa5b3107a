"""Ollama through its own chat API, which alone bounds the context and keeps models in memory.

Why not its OpenAI-compatible endpoint: docs/decisions/008-ollama-speaks-its-own-protocol.md.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import httpx2

from config.catalog import Model, Provider
from config.errors import BackendError, ConfigurationError
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.bounds import most_cost
from workers.backends.http_client import UNREADABLE, JsonClient, translated
from workers.backends.http_logprobs import Position, choose, position
from workers.backends.http_pool import SideBySide
from workers.backends.http_provider import Access, Defaults, access
from workers.backends.http_questions import bound, cut, messages, stopped, stops, texts, thinks
from workers.backends.http_stream import TORN, Writing, wants_pieces

PROTOCOL = "Ollama"
DEFAULTS = Defaults("ollama", url="http://127.0.0.1:11434")
TOP_LOGPROBS = 20


class OllamaBackend(SideBySide):
    """One model of one Ollama."""

    def __init__(
        self, name: str, model: Model, provider: Provider | None, slots: int, *, key: str | None
    ) -> None:
        """Connect to nothing yet; ``slots`` calls may run at once.

        Raises:
            ConfigurationError: the key or the URL is malformed.
        """
        super().__init__(slots, "ollama")
        self._name = name
        self._model = model
        self._remote = remote_name(name, model)
        self._access = ollama_access(model, provider, key)
        # Versions before 0.12.11 give no log-probabilities; the text then speaks for itself.
        self.capabilities = Capabilities(
            self._access.local, probabilities=not thinks(model), streaming=True
        )
        self._client = JsonClient(self._access, model.timeout_s)

    def check(self) -> None:
        """Ask once whether Ollama is there and has the model.

        Raises:
            ConfigurationError: it refuses the key, or the model was not pulled.
        """
        found = self._client.look("/api/tags", PROTOCOL)
        if found is not None and not has(found, self._remote):
            raise ConfigurationError(f"{self._access.name} {self._lack()}")

    def most_micros(self, request: Request) -> int:
        """The most that a call can cost, in micro-dollars; 0 on a machine of one's own."""
        return most_cost(self._model.price, texts(request), bound(request, self._model))

    def close(self) -> None:
        """End the connections; may be called twice."""
        super().close()
        self._client.close()

    def _ask(self, request: Request) -> Completion:
        start = time.monotonic()
        try:
            if wants_pieces(request):
                return self._streamed(request, start)
            said = self._client.post("/api/chat", self._call(request))
            return self._completion(request, said, time.monotonic() - start)
        except UNREADABLE as broken:
            error = self._failure(broken, self.most_micros(request))
        return Completion(id=request.id, error=error, inference_s=time.monotonic() - start)

    def _streamed(self, request: Request, start: float) -> Completion:
        writing = Writing(request, self._model, local=self._access.local)
        last: dict[str, Any] = {}
        call = self._call(request) | {"stream": True}
        with self._client.stream("/api/chat", call) as parts:
            for last in parts:
                writing.add(last["message"]["content"] or "")
        if not last.get("done"):
            raise ValueError(TORN)
        said = last | {"message": {"content": writing.text}}
        completion = self._completion(request, said, time.monotonic() - start)
        writing.end(completion.raw)
        return completion

    def _failure(self, broken: Exception, most_micros: int) -> BackendError:
        status, error = translated(broken, PROTOCOL, most_micros, self._model.timeout_s)
        is_lacking = status == 404 and isinstance(broken, httpx2.HTTPStatusError)
        return BackendError(self._lack(), retryable=False) if is_lacking else error

    def _lack(self) -> str:
        return f"has no model {self._remote!r}: run `uptier models pull {self._name}`"

    def _call(self, request: Request) -> dict[str, Any]:
        effort = self._model.reasoning_effort
        call: dict[str, Any] = {
            "model": self._remote,
            "messages": messages(request),
            "stream": False,
            # From 0.12.6 on a prompt that is too long is refused, where it used to lose its
            # beginning without a word.
            "truncate": False,
            "shift": False,
            # Models that cannot think take False, but nothing else.
            "think": (True if effort == "minimal" else effort) if thinks(self._model) else False,
            "options": self._options(request),
        }
        if self._model.keep_alive_s is not None:
            call["keep_alive"] = self._model.keep_alive_s
        if isinstance(request.output, JsonOutput):
            call["format"] = request.output.json_schema
        elif isinstance(request.output, ChoiceOutput) and self.capabilities.probabilities:
            call |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return call

    def _options(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        options: dict[str, Any] = {
            # Without it Ollama takes one of its own, however long the prompt is.
            "num_ctx": self._model.context,
            "num_predict": bound(request, self._model),
            "seed": request.seed & 0x7FFFFFFF,
        }
        if isinstance(request.output, ChoiceOutput):
            # The best label is read from the likeliest path, so none is drawn.
            return options | {"temperature": 0}
        options |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        ends = stops(request)
        return options | {"stop": ends} if ends else options

    def _completion(self, request: Request, said: dict[str, Any], seconds: float) -> Completion:
        raw = str(said["message"]["content"] or "")
        # A prompt that Ollama still holds is not counted by older versions.
        tokens_in, tokens_out = int(said.get("prompt_eval_count", 0)), int(said["eval_count"])
        completion = Completion(
            id=request.id,
            raw=cut(raw, stops(request)),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            inference_s=seconds,
            cost_micros=self._model.price.micros(tokens_in, tokens_out),
            truncated=said.get("done_reason") == "length" and not stopped(request, raw),
        )
        if not isinstance(request.output, ChoiceOutput):
            return completion
        scores = choose(request.output.labels, raw, _positions(said.get("logprobs") or ()))
        if scores is None:
            return completion
        return replace(
            completion,
            label=request.output.labels[scores.best],
            probabilities=scores.probabilities,
            mass=scores.mass,
        )


def ollama_access(model: Model, provider: Provider | None, key: str | None) -> Access:
    """How to reach the Ollama of a model.

    Raises:
        ConfigurationError: the key or the URL is malformed.
    """
    return access(model, provider, DEFAULTS, key)


def remote_name(name: str, model: Model) -> str:
    """What Ollama calls a model; without a tag it means the latest."""
    remote = model.remote_name or name
    return remote if ":" in remote.rsplit("/", 1)[-1] else f"{remote}:latest"


def has(tags: dict[str, Any], remote: str) -> bool:
    """Whether the answer of ``/api/tags`` lists a model."""
    listed = tags.get("models") or ()
    return any(remote in (one.get("name"), one.get("model")) for one in listed)


def _positions(logprobs: Any) -> list[Position]:
    return [
        position(
            one["token"],
            one["logprob"],
            [(top["token"], top["logprob"]) for top in one.get("top_logprobs") or ()],
        )
        for one in logprobs
    ]
