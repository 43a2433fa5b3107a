"""The backends that reach their model over HTTP, each with the protocol of its server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from config.catalog import BackendName, Dialect, Model, Price, Provider, Sampling
from routing.decision import ChoiceOutput, JsonOutput, Output, TextOutput
from tests.contract import protocols
from tests.contract.standins import Script, Standin
from workers.backends.anthropic import AnthropicBackend
from workers.backends.base import Backend, Completion, Request
from workers.backends.llama_server import LlamaServerBackend
from workers.backends.ollama import OllamaBackend
from workers.backends.openai import OpenAIBackend

KEY = "sk-contract-0123456789abcdef"
PRICE = Price(input="2", output="10", cached_input="0.5", cache_write="2.5")
SYSTEM = "You settle conflicts."
PROMPT = "Who yields?"
CHOICE = ChoiceOutput(labels=("YIELD", "INSIST", "WAIT"))
SCHEMA = {
    "type": "object",
    "properties": {"hours": {"type": "integer"}},
    "required": ["hours"],
    "additionalProperties": False,
}
JSON = JsonOutput(json_schema=SCHEMA)
TEXT = TextOutput()
Open = Callable[[str, Model, Provider], Backend]


@dataclass(frozen=True)
class Case:
    """A backend, its server's wording, and what can be expected of the two."""

    name: str
    backend: BackendName
    wording: protocols.Wording
    open: Open
    path: str = ""
    dialect: Dialect = Dialect.OPENAI
    paid: bool = False
    probabilities: bool = True
    mass: bool = True
    """Whether the share of the labels in the whole is known."""
    cache: bool = True
    """Whether the server tells how much of a prompt it held."""
    timeout_s: float = 5

    def model(self, timeout_s: float | None = None) -> Model:
        """The model as a catalog would have it."""
        return Model(
            backend=self.backend,
            provider="standin",
            remote_name="standin",
            context=4096,
            timeout_s=timeout_s or self.timeout_s,
            price=PRICE if self.paid else Price(),
        )

    def provider(self, url: str) -> Provider:
        """Its provider; a paid one is elsewhere and wants a key."""
        return Provider(
            backend=self.backend,
            dialect=self.dialect,
            base_url=url + self.path,
            api_key_env="STANDIN_KEY" if self.paid else None,
            local=not self.paid,
        )

    @contextmanager
    def opened(
        self, script: Script, timeout_s: float | None = None
    ) -> Iterator[tuple[Backend, Standin]]:
        """The backend beside a server that plays the script."""
        with Standin(self.wording, script) as standin:
            backend = self.open("standin", self.model(timeout_s), self.provider(standin.url))
            yield backend, standin
            backend.close()


def _openai(name: str, model: Model, provider: Provider) -> Backend:
    key = None if provider.local else KEY
    return OpenAIBackend(name, model, provider, 4, key=key)


def _anthropic(name: str, model: Model, provider: Provider) -> Backend:
    return AnthropicBackend(name, model, provider, 4, key=KEY)


def _ollama(name: str, model: Model, provider: Provider) -> Backend:
    return OllamaBackend(name, model, provider, 4, key=None)


def _llama_server(name: str, model: Model, provider: Provider) -> Backend:
    return LlamaServerBackend(model, provider, 4, key=None)


def _speaks(name: str, dialect: Dialect, *, paid: bool = False, probabilities: bool = True) -> Case:
    return Case(
        name,
        BackendName.OPENAI,
        protocols.OpenAI(),
        _openai,
        "/v1",
        dialect,
        paid=paid,
        probabilities=probabilities,
        mass=dialect is not Dialect.VLLM,
    )


SERVED = (
    _speaks("openai", Dialect.OPENAI, paid=True),
    _speaks("vllm", Dialect.VLLM),
    _speaks("llama_server_v1", Dialect.LLAMA_SERVER),
    _speaks("ollama_v1", Dialect.OLLAMA),
    _speaks("gemini", Dialect.GEMINI, paid=True, probabilities=False),
    Case("ollama", BackendName.OLLAMA, protocols.Ollama(), _ollama, cache=False),
    Case("llama_server", BackendName.LLAMA_SERVER, protocols.LlamaServer(), _llama_server),
    Case(
        "anthropic",
        BackendName.ANTHROPIC,
        protocols.Anthropic(),
        _anthropic,
        paid=True,
        probabilities=False,
    ),
)


def request(
    output: Output,
    request_id: str = "1",
    prompt: str = PROMPT,
    system: str = SYSTEM,
    **drawn: object,
) -> Request:
    """A request as a lane makes it."""
    sampling = Sampling.model_validate({"max_tokens": 60, "temperature": 0, **drawn})
    return Request(request_id, "conflict_resolution", system, prompt, output, sampling, 1)


def ask(backend: Backend, output: Output, **asked: object) -> Completion:
    """The one completion of one request."""
    (completion,) = backend.answer([request(output, **asked)])
    return completion
