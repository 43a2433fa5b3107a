"""The catalog: tiers, lanes, models, providers, prices and decision kinds as typed data."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from config.errors import InputError

# A part of the catalog, apart only for its length; everybody else takes it from here.
from config.weights import FileSource as FileSource
from config.weights import HubSource as HubSource
from config.weights import Name as Name
from config.weights import PackageSource as PackageSource
from config.weights import Strict as Strict
from config.weights import Weights as Weights

Dollars = Annotated[Decimal, Field(ge=0)]
Adapter = Annotated[Weights | None, BeforeValidator(lambda given: given or None)]
"""A LoRA adapter's file; an empty table only names it, until it has one."""


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
    "reasoning_effort": (BackendName.OPENAI, BackendName.OLLAMA),
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


class OutputType(StrEnum):
    """What a decision asks for: one of a closed set, bounded text, or JSON by a schema."""

    CHOICE = "choice"
    TEXT = "text"
    JSON = "json"


class Price(Strict):
    """Dollars per million tokens, which is micro-dollars per token."""

    input: Dollars = Decimal(0)
    output: Dollars = Decimal(0)
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None

    def micros(
        self, tokens_in: int, tokens_out: int, cached_in: int = 0, cache_writes: int = 0
    ) -> int:
        """Cost of a call in whole micro-dollars, half a micro-dollar rounded up.

        ``tokens_in`` counts neither ``cached_in`` nor ``cache_writes``.
        """
        cached = self.input if self.cached_input is None else self.cached_input
        writes = self.input if self.cache_write is None else self.cache_write
        total = (
            self.input * tokens_in
            + self.output * tokens_out
            + cached * cached_in
            + writes * cache_writes
        )
        return int(total.to_integral_value(ROUND_HALF_UP))


class Sampling(Strict):
    """How text is drawn. ``max_tokens`` bounds the answer; stops end it."""

    max_tokens: int = Field(default=200, ge=1)
    temperature: float = Field(default=0.3, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    stops: tuple[str, ...] = ()


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


class Tier(Strict):
    """A rung of the ladder: 1 is the cheapest."""

    rank: int = Field(ge=1)
    sampling: Sampling = Sampling()


class Lane(Strict):
    """A queue that identical workers of one model serve."""

    tier: Name
    model: Name
    speciality: str = "general"
    workers: int = Field(default=1, ge=1)
    slots: int = Field(default=1, ge=1, description="messages a worker holds at once")
    record_every_s: float = Field(default=0.5, gt=0)
    threads: int | None = Field(default=None, ge=1, description="CPU threads; all cores if absent")
    gpu: int | None = Field(default=None, ge=0)
    max_attempts: int = Field(default=3, ge=1)
    repeat_unknown_charges: bool = False
    """Whether a paid call that may have been served already is made again."""


class Kind(Strict):
    """What sort of question a decision is, and how it is treated by default."""

    tier: Name
    output: OutputType | None = None
    labels: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    stops: tuple[str, ...] | None = None
    threshold: float = Field(default=0.7, ge=0, le=1)
    margin: float = Field(default=0.1, ge=0, le=1)
    """By how much the best label's probability must exceed the next one's."""
    critique: bool = False
    cache: bool = False
    template: str | None = None
    group: str = "general"
    speciality: str = "general"
    """Lanes of this speciality are asked before the others of their tier."""
    adapter: Name | None = None
    """The LoRA adapter that answers it, on lanes whose model has it."""
    expected_tokens: int = Field(default=800, ge=1, description="per call, for projections")


class Rule(Strict):
    """Names a tier for decisions of which everything in ``when`` is true.

    The keys are ``kind`` and the fields of a decision's signals and preferences.
    """

    when: dict[str, bool | str | int]
    tier: Name
    reason: str


class Routing(Strict):
    """The rules of where decisions go that are not a kind's own."""

    unknown_kind_tier: Name
    critic_tier: Name
    rules: tuple[Rule, ...] = ()
    """Checked first and in order; the first that fits decides."""
    overrides: dict[str, Name] = {}
    """Tiers of kinds, instead of the kinds' own."""
    raises: tuple[Rule, ...] = ()
    """Checked in order where neither rule, wish nor override decides; they only lift a tier."""
    max_climbs: int = Field(default=2, ge=0)
    """How many lanes a decision may try after its first."""


class CloudBudget(Strict):
    """Bounds on paid calls; an absent bound does not bind."""

    per_run_usd: Dollars | None = None
    per_day_usd: Dollars | None = None
    """Of the calendar (UTC), over all runs of a ledger."""
    per_request_usd: Dollars | None = None
    """Over all attempts of one decision."""
    calls_per_agent_day: int | None = Field(default=None, ge=0)
    """A simulated day where the decision has one, else a day of the calendar."""
    usd_per_agent_day: Dollars | None = None
    alert_share: float = Field(default=0.8, gt=0, le=1)
    """Used share from which reports and ``uptier status`` point a budget out."""


class Catalog(Strict):
    """A profile, read and checked: every name in it resolves."""

    profile: str
    description: str = ""
    tiers: dict[Name, Tier]
    lanes: dict[Name, Lane]
    models: dict[Name, Model]
    providers: dict[Name, Provider] = {}
    kinds: dict[Name, Kind]
    routing: Routing
    cloud_budget: CloudBudget = CloudBudget()
    reference_model: Name | None = None
    """The cloud model whose price the all-cloud cost is reckoned with."""

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for name, lane in self.lanes.items():
            _known(lane.tier, self.tiers, f"lanes.{name}.tier")
            _known(lane.model, self.models, f"lanes.{name}.model")
        for name, kind in self.kinds.items():
            _known(kind.tier, self.tiers, f"kinds.{name}.tier")
        for name, model in self.models.items():
            if model.provider is not None:
                _known(model.provider, self.providers, f"models.{name}.provider")
        for kind_name, tier in self.routing.overrides.items():
            _known(tier, self.tiers, f"routing.overrides.{kind_name}")
        for index, rule in enumerate(self.routing.rules):
            _known(rule.tier, self.tiers, f"routing.rules[{index}].tier")
        for index, rule in enumerate(self.routing.raises):
            _known(rule.tier, self.tiers, f"routing.raises[{index}].tier")
        _known(self.routing.unknown_kind_tier, self.tiers, "routing.unknown_kind_tier")
        _known(self.routing.critic_tier, self.tiers, "routing.critic_tier")
        if self.reference_model is not None:
            _known(self.reference_model, self.models, "reference_model")
        return self

    @model_validator(mode="after")
    def _adapters_resolve(self) -> Self:
        known = {name: True for model in self.models.values() for name in model.adapters}
        for name, kind in self.kinds.items():
            if kind.adapter is not None:
                _known(kind.adapter, known, f"kinds.{name}.adapter")
        return self

    def kind(self, name: str) -> Kind:
        """The kind of that name, or the treatment of unknown kinds."""
        found = self.kinds.get(name)
        return found if found is not None else Kind(tier=self.routing.unknown_kind_tier)

    def lane_model(self, lane: str) -> Model:
        """The model that serves a lane."""
        if lane not in self.lanes:
            raise InputError(
                f"lane {lane!r} is not in profile {self.profile!r}: choose one of "
                f"{', '.join(self.lanes)}"
            )
        return self.models[self.lanes[lane].model]

    def rank(self, lane: str) -> int:
        """The rank of a lane's tier, 1 the cheapest."""
        return self.tiers[self.lanes[lane].tier].rank

    def is_local(self, model_name: str) -> bool:
        """Whether prompts to this model stay on the machine.

        A model that is reached over HTTP is local only where its provider says so.
        """
        model = self.models[model_name]
        if model.provider is not None:
            return self.providers[model.provider].local
        return model.backend in IN_PROCESS

    def is_paid(self, lane: str) -> bool:
        """Whether calls on this lane are paid for: intents are written, budgets reserved."""
        name = self.lanes[lane].model
        price = self.models[name].price
        return not self.is_local(name) or price.input > 0 or price.output > 0

    def sampling(self, lane: str) -> Sampling:
        """How a lane's model draws text: the model's own way, else its tier's."""
        model = self.lane_model(lane)
        return model.sampling or self.tiers[self.lanes[lane].tier].sampling


def _known(name: str, names: dict[str, Any], place: str) -> None:
    if name not in names:
        some = f"choose one of {', '.join(names)}" if names else "drop it, there is none"
        raise ValueError(f"{place} = {name!r} is not defined: {some}")
