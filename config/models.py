"""Models, the ways to reach them, and who provides them, as a profile names them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from config.prices import Dollars, Price
from config.strategies import Milliseconds, Share
from config.weights import Name, Strict, Weights

Adapter = Annotated[Weights | None, BeforeValidator(lambda given: given or None)]
"""A LoRA adapter's file; an empty table only names it, until it has one."""


def _not_empty(stop: str) -> str:
    if not stop:
        raise ValueError("a stop must not be empty: it would end every text before its first token")
    return stop


Stop = Annotated[str, AfterValidator(_not_empty)]
"""Characters that end a text; they are no part of it."""


class BackendName(StrEnum):
    """The ways in which a model can be reached."""

    LLAMA_CPP = "llama_cpp"
    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    OLLAMA = "ollama"
    LLAMA_SERVER = "llama_server"
    TRANSFORMERS = "transformers"
    SCRIPTED = "scripted"


IN_PROCESS = frozenset({BackendName.LLAMA_CPP, BackendName.TRANSFORMERS, BackendName.SCRIPTED})
"""Backends that answer within the worker's own process."""
OWN_OPTIONS = {
    "reasoning_effort": (BackendName.OPENAI, BackendName.OLLAMA, BackendName.ANTHROPIC),
    "cache_from_tokens": (BackendName.ANTHROPIC,),
    "keep_alive_s": (BackendName.OLLAMA,),
}
"""Options of models that only these backends read."""


class Dialect(StrEnum):
    """Which server speaks the OpenAI protocol: each takes and gives a little more or less."""

    OPENAI = "openai"
    VLLM = "vllm"
    LLAMA_SERVER = "llama_server"
    OLLAMA = "ollama"
    GEMINI = "gemini"


class Sampling(Strict):
    """How text is drawn. ``max_tokens`` bounds the answer; stops end it."""

    max_tokens: int = Field(default=200, ge=1)
    temperature: float = Field(default=0.3, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    stops: tuple[Stop, ...] = ()


class Model(Strict):
    """A model and all that is needed to serve it."""

    backend: BackendName
    provider: str | None = None
    remote_name: str | None = None
    """The provider's own name of the model, where it differs from the catalog's."""
    weights: Weights | None = None
    parameters_b: float | None = Field(default=None, gt=0, description="billions")
    vram_mb: int | None = Field(default=None, ge=0, description="estimate at the catalog's format")
    expected_tokens_per_s: float | None = Field(default=None, gt=0)
    context: int = Field(default=2048, ge=128, description="tokens")
    batch: int = Field(default=512, ge=32, description="tokens per forward pass")
    gpu_layers: int = -1
    reproducible: bool = False
    """Whether each answer is computed by itself, so that it does not depend on its company; in
    batches logits move by rounding. For models in process."""
    sampling: Sampling | None = None
    price: Price = Price()
    amortised_per_million: Dollars | None = None
    """Of a local model: what a million tokens cost in wear and power, to compare lanes by."""
    quality: Share | None = None
    """How often its answers are expected to do, to compare lanes by; absent: its band's."""
    latency_ms: Milliseconds | None = None
    """Expected time of an answer; absent: reckoned from tokens a second, else its band's."""
    speciality: str = "general"
    adapters: dict[Name, Adapter] = {}
    max_adapters: int = Field(default=4, ge=1)
    """How many adapters are loaded at once; the one used least recently leaves for another."""
    preload: tuple[Name, ...] = ()
    """Adapters that are loaded before the first question; others on first use."""
    timeout_s: float = Field(default=120, gt=0)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    """How much a model that can think does so before it answers; absent: it cannot. One that
    thinks takes no sampling and gives no log-probabilities, and its thoughts count as answer."""
    cache_from_tokens: int | None = Field(default=None, ge=1)
    """Constant parts of prompts that are at least so long are marked for the provider's cache;
    absent: none is. Providers name the shortest part that they keep for each model."""
    keep_alive_s: int | None = Field(default=None, ge=-1)
    """How long Ollama keeps the model in memory after a call; -1: for ever; absent: as it likes."""
    enabled: bool = True
    script: dict[str, Any] | None = None
    """What a ``scripted`` model does; see workers/backends/scripted.py."""

    @model_validator(mode="after")
    def _has_what_its_backend_needs(self) -> Self:
        if self.backend is BackendName.LLAMA_CPP and self.weights is None:
            raise ValueError("a llama_cpp model needs [weights]")
        for name, backends in OWN_OPTIONS.items():
            if getattr(self, name) is not None and self.backend not in backends:
                raise ValueError(f"{name} is an option of {' and '.join(backends)} models: drop it")
        return self

    @model_validator(mode="after")
    def _adapters_can_be_loaded(self) -> Self:
        if self.adapters and self.backend is not BackendName.LLAMA_CPP:
            raise ValueError("adapters are for llama_cpp models: drop them")
        for name, weights in self.adapters.items():
            if weights is not None and weights.formats:
                raise ValueError(f"adapter {name} is served as it comes: drop its formats")
        for name in self.preload:
            if self.adapters.get(name) is None:
                raise ValueError(f"preload {name!r} is no adapter with a file: give it one")
        if len(self.preload) > self.max_adapters:
            raise ValueError(
                f"preload names {len(self.preload)} adapters and max_adapters is "
                f"{self.max_adapters}: raise it or preload fewer"
            )
        return self


class Provider(Strict):
    """A service outside this process that serves models."""

    backend: BackendName
    base_url: str | None = None
    base_url_env: str | None = None
    api_key_env: str | None = None
    dialect: Dialect = Dialect.OPENAI
    """Of an ``openai`` provider: which server answers there."""
    local: bool = False
    """True when prompts do not leave the machine."""
    failures_to_open: int = Field(default=5, ge=1)
    """Outages in a row after which the breaker opens and no worker calls any more."""
    cooldown_s: float = Field(default=30, gt=0)
    """How long it stays open first; each opening without a success between doubles it."""
    longest_cooldown_s: float = Field(default=600, gt=0)
    quota_cooldown_s: float = Field(default=3600, gt=0)
    """How long it stays open when the provider says that the account is used up."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """All workers together; absent: no bound."""
    burst: int = Field(default=1, ge=1)
    """Calls that may go out at once after a pause, where there is a bound."""
