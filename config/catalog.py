"""The catalog: tiers, lanes, models, providers, prices and decision kinds as typed data."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, model_validator

from config.agents import Agent
from config.auditing import Audit, Certifying
from config.caching import CacheRules, Seconds
from config.consensus import Consensus, consensus_fault
from config.demands import Demands, demands_fault
from config.errors import InputError

# Parts of the catalog, apart only for their length; everybody else takes them from here.
from config.models import IN_PROCESS as IN_PROCESS
from config.models import BackendName as BackendName
from config.models import CacheType as CacheType
from config.models import Dialect as Dialect
from config.models import Model as Model
from config.models import Provider as Provider
from config.models import Sampling as Sampling
from config.models import Shape as Shape
from config.models import Stop as Stop
from config.prices import Dollars as Dollars
from config.prices import Price as Price
from config.strategies import (
    BALANCED,
    Bands,
    Factors,
    LocalCost,
    Preset,
    QueryType,
    Speciality,
    Strategy,
)
from config.swarm import Swarm
from config.targets import Targets
from config.weights import FileSource as FileSource
from config.weights import HubSource as HubSource
from config.weights import Name as Name
from config.weights import PackageSource as PackageSource
from config.weights import Strict as Strict
from config.weights import Weights as Weights


class OutputType(StrEnum):
    """What a decision asks for: one of a closed set, bounded text, or JSON by a schema."""

    CHOICE = "choice"
    TEXT = "text"
    JSON = "json"


class Tier(Strict):
    """A rung of the ladder: 1 is the cheapest."""

    rank: int = Field(ge=1)
    """1 is the cheapest; decisions climb by it."""
    sampling: Sampling = Sampling()
    """How text is drawn, where the model does not say."""


class Lane(Strict):
    """A queue that identical workers of one model serve."""

    tier: Name
    """The rung that it serves."""
    model: Name
    """Who answers."""
    speciality: str = "general"
    """What it is asked before the others of its tier."""
    workers: int = Field(default=1, ge=1)
    """Processes on one machine."""
    slots: int = Field(default=1, ge=1, description="messages a worker holds at once")
    record_every_s: float = Field(default=0.5, gt=0)
    """How long a finished answer may wait for others to be written with it."""
    threads: int | None = Field(default=None, ge=1, description="CPU threads; all cores if absent")
    gpu: int | None = Field(default=None, ge=0)
    """The card, counted from 0; absent: whichever has room."""
    cpu_too: bool = False
    """Whether it may run on the CPU where no card has room; else such a placement is refused."""
    max_attempts: int = Field(default=3, ge=1)
    """Tries after failures of the backend, before the next lane."""
    repeat_unknown_charges: bool = False
    """Whether a paid call that may have been served already is made again."""
    consensus: Consensus | None = None
    """Other lanes that must say the same before an answer of this one is accepted."""


class Kind(Demands):
    """What sort of question a decision is, and how it is treated by default."""

    tier: Name
    """Where it starts."""
    output: OutputType | None = None
    """What it asks for; absent: as the caller says."""
    labels: tuple[str, ...] = ()
    """What a choice is made of, where the caller names none."""
    json_schema: dict[str, Any] | None = None
    """What JSON has to fit, where the caller gives none."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of an answer, instead of the tier's."""
    stops: tuple[Stop, ...] | None = None
    """Instead of the tier's."""
    threshold: float = Field(default=0.7, ge=0, le=1)
    """Score of the quality check from which an answer is accepted."""
    margin: float = Field(default=0.1, ge=0, le=1)
    """By how much the best label's probability must exceed the next one's."""
    critique: bool = False
    """Whether the fast model is asked for its word on each answer."""
    cache: bool = False
    """Whether answers serve again."""
    cache_exact: bool = False
    """Whether the prompt as it stands says all: agents of every role and under any load share its
    answer, and dates and times tell questions apart. Without ``cache`` it says nothing."""
    cache_ttl_s: Seconds | None = None
    """How long its cached answers may serve, instead of the profile's ``cache.ttl_s``."""
    semantic: bool = False
    """Whether a cached answer also serves questions that are only alike."""
    similarity: float | None = Field(default=None, gt=0, le=1)
    """How alike, instead of the profile's ``cache.similarity``."""
    any_numbers: bool = False
    """Whether questions with different numbers can be alike."""
    template: str | None = None
    """The prompt of ``config/prompts`` that is filled with its state."""
    group: str = "general"
    """Kinds of a group learn from one another what lanes are worth."""
    speciality: str | None = None
    """Lanes of this speciality are asked before the others of their tier; absent: the words of
    the prompt decide, where the profile has ``specialities``."""
    adapter: Name | None = None
    """The LoRA adapter that answers it, on lanes whose model has it."""
    certified: bool = False
    """Whether an answer below the top tier is accepted with a certificate only."""
    audit_share: float | None = Field(default=None, ge=0, le=1)
    """Share of its accepted answers that are audited, instead of ``audit.share``."""
    expected_tokens: int = Field(default=800, ge=1, description="per call, for projections")

    @model_validator(mode="after")
    def _demands_fit_the_output(self) -> Self:
        fault = demands_fault(self, self.output)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _only_cached_answers_are_found_again(self) -> Self:
        if self.semantic and not self.cache:
            raise ValueError("semantic = true needs cache = true: set both or neither")
        return self

    @model_validator(mode="after")
    def _can_be_certified(self) -> Self:
        if self.certified and self.output not in (None, OutputType.CHOICE):
            raise ValueError("certified is for choices, whose labels have probabilities: drop it")
        return self


class Rule(Strict):
    """Names a tier for decisions of which everything in ``when`` is true.

    The keys are ``kind``, ``complexity`` and the fields of a decision's signals and preferences.
    """

    when: dict[str, bool | str | int]
    """What must be true of a decision, all of it."""
    tier: Name
    """The tier that it gives."""
    reason: str
    """What plans say of it."""


class Routing(Strict):
    """The rules of where decisions go that are not a kind's own."""

    unknown_kind_tier: Name
    """Where kinds start that the profile does not name."""
    critic_tier: Name
    """The tier that criticises and classifies."""
    rules: tuple[Rule, ...] = ()
    """Checked first and in order; the first that fits decides."""
    overrides: dict[str, Name] = {}
    """Tiers of kinds, instead of the kinds' own."""
    raises: tuple[Rule, ...] = ()
    """Checked in order where neither rule, wish nor override decides; they only lift a tier."""
    max_climbs: int = Field(default=2, ge=0)
    """How many lanes a decision may try after its first."""
    strategy: Strategy = Strategy.LOCAL_FIRST
    """What chooses the first lane, where neither rule, wish nor override does."""
    weights: Factors = BALANCED
    """Of the factors of ``hybrid``."""
    preset: Name | None = None
    """The preset of decisions that name none; its privacy holds for all."""
    classify: bool = False
    """Whether the critic's tier classifies requests before they are planned."""
    bands: Bands = Bands()
    """What to expect of models of which nothing is said."""
    local_cost: LocalCost = LocalCost()
    """What local work is reckoned at, to compare lanes."""
    query_types: tuple[QueryType, ...] = ()
    """Kinds for prompts whose asker names none, in order."""
    learn: bool = False
    """Whether what became of earlier decisions moves where new ones start."""
    answer_usd: Dollars = Decimal("0.01")
    """What an answer that passes is worth, where it learns."""
    second_usd: Dollars = Decimal("0.0001")
    """What a second of a model's work costs beside the provider's price, where it learns."""


class CloudBudget(Strict):
    """Bounds on paid calls; an absent bound does not bind."""

    per_run_usd: Dollars | None = None
    """What all paid calls of a run may cost."""
    per_day_usd: Dollars | None = None
    """Of the calendar (UTC), over all runs of a ledger."""
    per_request_usd: Dollars | None = None
    """Over all attempts of one decision."""
    calls_per_agent_day: int | None = Field(default=None, ge=0)
    """A simulated day where the decision has one, else a day of the calendar."""
    usd_per_agent_day: Dollars | None = None
    """What one agent's paid calls of a day may cost; days as above."""
    alert_share: float = Field(default=0.8, gt=0, le=1)
    """Used share from which reports and ``uptier status`` point a budget out."""


class Catalog(Strict):
    """A profile, read and checked: every name in it resolves."""

    profile: str
    """Its name, from the file's."""
    description: str = ""
    """What ``uptier`` says of it."""
    tiers: dict[Name, Tier]
    """The rungs, by name."""
    lanes: dict[Name, Lane]
    """The queues, by name."""
    models: dict[Name, Model]
    """Who can answer, by name."""
    providers: dict[Name, Provider] = {}
    """Services outside the process, by name."""
    kinds: dict[Name, Kind]
    """What is asked, by name."""
    specialities: dict[Name, Speciality] = {}
    """Words by which prompts are given to specialists."""
    presets: dict[Name, Preset] = {}
    """Wishes under one name."""
    agents: dict[Name, Agent] = {}
    """Who asks in sessions; the first one does where nobody is named."""
    routing: Routing
    """Where decisions go."""
    cloud_budget: CloudBudget = CloudBudget()
    """What paid calls may cost."""
    cache: CacheRules = CacheRules()
    """How answers are kept and found again."""
    audit: Audit = Audit()
    """Which accepted answers are asked again."""
    certificates: Certifying = Certifying()
    """What certificates promise."""
    swarm: Swarm = Swarm()
    """How the daemon works."""
    reference_model: Name | None = None
    """The cloud model whose price the all-cloud cost is reckoned with."""
    targets: Targets = Targets()
    """What costs and quality are held to."""

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
            _known(kind_name, self.kinds, "routing.overrides: kind")
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
        for name, agent in self.agents.items():
            if agent.adapter is not None:
                _known(agent.adapter, known, f"agents.{name}.adapter")
        return self

    @model_validator(mode="after")
    def _agents_resolve(self) -> Self:
        for name, agent in self.agents.items():
            if agent.preset is not None:
                _known(agent.preset, self.presets, f"agents.{name}.preset")
            _known(agent.kind, self.kinds, f"agents.{name}.kind")
            if self.kinds[agent.kind].output not in (None, OutputType.TEXT):
                raise ValueError(
                    f"agents.{name}.kind = {agent.kind!r} is not answered in text, and sessions "
                    "are: choose another"
                )
        return self

    @model_validator(mode="after")
    def _wishes_resolve(self) -> Self:
        if self.routing.preset is not None:
            _known(self.routing.preset, self.presets, "routing.preset")
        for index, query_type in enumerate(self.routing.query_types):
            _known(query_type.kind, self.kinds, f"routing.query_types[{index}].kind")
        served = {lane.speciality: True for lane in self.lanes.values()}
        for name in self.specialities:
            _known(name, served, "specialities: lane speciality")
        return self

    @model_validator(mode="after")
    def _panels_resolve(self) -> Self:
        for name, lane in self.lanes.items():
            if lane.consensus is not None:
                fault = consensus_fault(name, lane.consensus, self.lanes, self.kinds)
                if fault is not None:
                    raise ValueError(fault)
        return self

    def kind(self, name: str) -> Kind:
        """The kind of that name, or the treatment of unknown kinds."""
        found = self.kinds.get(name)
        return found if found is not None else Kind(tier=self.routing.unknown_kind_tier)

    def audit_share(self, kind: str) -> float:
        """The share of a kind's accepted answers that are audited, between 0 and 1."""
        own = self.kind(kind).audit_share
        return self.audit.share if own is None else own

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
