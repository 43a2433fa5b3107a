"""llama.cpp's own server: prompts are made of tokens, choices are scored by their labels' tokens.

It is asked as the model in process is: the same words, the same pieces, what the asker wrote never
read as markup. See ``llama_server_prompts`` and ``llama_server_choice``.
"""

from __future__ import annotations

import time
from typing import Any

from config.catalog import Model, Provider
from config.errors import BackendError
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.bounds import most_cost
from workers.backends.http_client import UNREADABLE, JsonClient, translated
from workers.backends.http_pool import SideBySide
from workers.backends.http_provider import Defaults, access
from workers.backends.http_questions import bound, cut, stopped, stops, texts
from workers.backends.http_stream import TORN, Writing, wants_pieces
from workers.backends.llama_server_choice import score
from workers.backends.llama_server_prompts import Prompts

PROTOCOL = "llama-server"
DEFAULTS = Defaults("llama_server", url="http://127.0.0.1:8080")


class LlamaServerBackend(SideBySide):
    """One llama-server and the one model that it serves."""

    def __init__(self, model: Model, provider: Provider | None, slots: int, *, key: str | None):
        """Connect to nothing yet; ``slots`` calls may run at once.

        Raises:
            ConfigurationError: the key or the URL is malformed.
        """
        super().__init__(slots, "llama-server")
        self._model = model
        reached = access(model, provider, DEFAULTS, key)
        self.capabilities = Capabilities(reached.local, probabilities=True, streaming=True)
        self._client = JsonClient(reached, model.timeout_s)
        self._prompts = Prompts(self._client)

    def check(self) -> None:
        """Ask once whether the server is there, has loaded its model, and takes the key.

        Raises:
            ConfigurationError: it refuses the key.
        """
        if self._client.look("/health", PROTOCOL) is not None:
            self._client.look("/props", PROTOCOL)

    def most_micros(self, request: Request) -> int:
        """The most that a call can cost, in micro-dollars; 0 on a machine of one's own."""
        return most_cost(self._model.price, texts(request), bound(request, self._model))

    def close(self) -> None:
        """End the connections; may be called twice."""
        super().close()
        self._client.close()

    def _ask(self, request: Request) -> Completion:
        start = time.monotonic()
        error: BackendError
        try:
            return self._answer(request, start)
        except BackendError as wrong:
            error = wrong
        except UNREADABLE as broken:
            most, timeout_s = self.most_micros(request), self._model.timeout_s
            _, error = translated(broken, PROTOCOL, most, timeout_s)
        return Completion(id=request.id, error=error, inference_s=time.monotonic() - start)

    def _answer(self, request: Request, start: float) -> Completion:
        prompt = self._prompts.tokens(request)
        if isinstance(request.output, ChoiceOutput):
            return self._choose(request, request.output, prompt, start)
        writing = Writing(request, self._model, local=self.capabilities.local)
        said = self._write(_call(request, prompt), writing if wants_pieces(request) else None)
        limit = said.get("stop_type") == "limit" or bool(said.get("stopped_limit"))
        raw = cut(said["content"], stops(request))
        writing.end(raw)
        return Completion(
            id=request.id,
            raw=raw,
            inference_s=time.monotonic() - start,
            truncated=limit and not stopped(request, said["content"]),
            **self._bill(said),
        )

    def _write(self, call: dict[str, Any], writing: Writing | None) -> dict[str, Any]:
        """The server's answer, heard as it comes where somebody listens."""
        if writing is None:
            return self._client.post("/completion", call)
        last: dict[str, Any] = {}
        with self._client.stream("/completion", call | {"stream": True}) as parts:
            for last in parts:
                writing.add(last["content"])
        if not last.get("stop"):
            raise ValueError(TORN)
        return last | {"content": writing.text}

    def _choose(
        self, request: Request, output: ChoiceOutput, prompt: list[int], start: float
    ) -> Completion:
        paths = self._prompts.labels(output.labels)
        scores, replies = score(self._client, prompt, paths)
        label = output.labels[scores.best]
        bills = [self._bill(reply) for reply in replies]
        cost = sum(bill["cost_micros"] for bill in bills)
        return Completion(
            id=request.id,
            raw=label,
            label=label,
            probabilities=scores.probabilities,
            mass=scores.mass,
            inference_s=time.monotonic() - start,
            **bills[0] | {"tokens_out": len(paths[scores.best]), "cost_micros": cost},
        )

    def _bill(self, said: dict[str, Any]) -> dict[str, Any]:
        tokens_in, tokens_out = int(said["tokens_evaluated"]), int(said["tokens_predicted"])
        cached = int(said.get("timings", {}).get("cache_n", 0))
        price = self._model.price
        return {
            "tokens_in": tokens_in,
            "tokens_out": tokens_out,
            "tokens_cached": cached,
            "cost_micros": price.micros(tokens_in - cached, tokens_out, cached),
        }


def _call(request: Request, prompt: list[int]) -> dict[str, Any]:
    sampling = request.sampling
    call: dict[str, Any] = {
        "prompt": prompt,
        "n_predict": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # As in process: drawn by top_p and temperature alone.
        "samplers": ["top_p", "temperature"],
        "seed": request.seed & 0x7FFFFFFF,  # all bits set would mean a random one
        "cache_prompt": True,
    }
    if isinstance(request.output, JsonOutput):
        return call | {"json_schema": request.output.json_schema}
    return call | {"stop": stops(request)}
