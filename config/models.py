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
    "cache_type": (BackendName.LLAMA_SERVER,),
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
    """The longest answer."""
    temperature: float = Field(default=0.3, ge=0)
    """0 takes the likeliest token each time."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Share of the probability that tokens are drawn from."""
    stops: tuple[Stop, ...] = ()
    """Texts that end an answer."""


class CacheType(StrEnum):
    """How a server keeps keys and values; the engine in process keeps them in 16 bits."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q5_1 = "q5_1"
    Q5_0 = "q5_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"


class Shape(Strict):
    """What of a model's architecture its key-value cache depends on."""

    layers: int = Field(ge=1)
    """Blocks of the transformer."""
    kv_heads: int = Field(ge=1)
    """Heads whose keys and values are kept; fewer than heads where these share them."""
    head_size: int = Field(ge=1)
    """Numbers of a head's key, and of its value."""


class Model(Strict):
    """A model and all that is needed to serve it."""

    backend: BackendName
    """How it is reached."""
    provider: str | None = None
    """Who serves it, where it does not run inside its worker."""
    remote_name: str | None = None
    """The provider's own name of the model, where it differs from the catalog's."""
    weights: Weights | None = None
    """The file of a local model."""
    parameters_b: float | None = Field(default=None, gt=0, description="billions")
    vram_mb: int | None = Field(default=None, ge=0, description="estimate at the catalog's format")
    """Weights and cache together; placement goes by it where the next three do not tell."""
    shape: Shape | None = None
    """Its key-value cache is reckoned from it; absent: asked of the weights, if they are here."""
    weights_mb: int | None = Field(default=None, ge=0)
    """What the weights take; absent: their file's size, else parameters times the format's bits."""
    cache_mb: int | None = Field(default=None, ge=0)
    """What the key-value cache takes; absent: reckoned."""
    cache_type: CacheType | None = None
    """How llama-server was told to keep keys and values; absent: in 16 bits."""
    expected_tokens_per_s: float | None = Field(default=None, gt=0)
    """What is expected of it, to compare lanes by; not measured."""
    context: int = Field(default=2048, ge=128, description="tokens")
    batch: int = Field(default=512, ge=32, description="tokens per forward pass")
    gpu_layers: int = -1
    """Layers on the card; -1: all."""
    reproducible: bool = False
    """Whether each answer is computed by itself, so that it does not depend on its company; in
    batches logits move by rounding. For models in process."""
    sampling: Sampling | None = None
    """How it draws text, instead of its tier's way."""
    price: Price = Price()
    """What its tokens cost."""
    amortised_per_million: Dollars | None = None
    """Of a local model: what a million tokens cost in wear and power, to compare lanes by."""
    quality: Share | None = None
    """How often its answers are expected to do, to compare lanes by; absent: its band's."""
    latency_ms: Milliseconds | None = None
    """Expected time of an answer; absent: reckoned from tokens a second, else its band's."""
    speciality: str = "general"
    """What it is best at."""
    adapters: dict[Name, Adapter] = {}
    """LoRA adapters, by name."""
    max_adapters: int = Field(default=4, ge=1)
    """How many adapters are loaded at once; the one used least recently leaves for another."""
    preload: tuple[Name, ...] = ()
    """Adapters that are loaded before the first question; others on first use."""
    timeout_s: float = Field(default=120, gt=0)
    """How long a call may take."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    """How much a model that can think does so before it answers; absent: it cannot. One that
    thinks takes no sampling and gives no log-probabilities, and its thoughts count as answer."""
    cache_from_tokens: int | None = Field(default=None, ge=1)
    """Constant parts of prompts that are at least so long are marked for the provider's cache;
    absent: none is. Providers name the shortest part that they keep for each model."""
    keep_alive_s: int | None = Field(default=None, ge=-1)
    """How long Ollama keeps the model in memory after a call; -1: for ever; absent: as it likes."""
    enabled: bool = True
    """Whether lanes of it are there."""
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
    """How it is reached."""
    base_url: str | None = None
    """Where, if not where its SDK goes by itself."""
    base_url_env: str | None = None
    """The variable that names another address."""
    api_key_env: str | None = None
    """The variable of its key; without the key its lanes are absent."""
    dialect: Dialect = Dialect.OPENAI
    """Of an ``openai`` provider: which server answers there."""
    local: bool = False
    """True when prompts do not leave the machine."""
    failures_to_open: int = Field(default=5, ge=1)
    """Outages in a row after which the breaker opens and no worker calls any more."""
    cooldown_s: float = Field(default=30, gt=0)
    """How long it stays open first; each opening without a success between doubles it."""
    longest_cooldown_s: float = Field(default=600, gt=0)
    """No opening of the breaker lasts longer."""
    quota_cooldown_s: float = Field(default=3600, gt=0)
    """How long it stays open when the provider says that the account is used up."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """All workers together; absent: no bound."""
    burst: int = Field(default=1, ge=1)
    """Calls that may go out at once after a pause, where there is a bound."""
