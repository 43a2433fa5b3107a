"""The values that travel: a decision, what it asks for, its plan, and what became of it."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from config.catalog import Catalog, Dollars, Name, OutputType, Stop
from config.errors import InputError
from config.load import one_line
from config.strategies import Factors, Milliseconds, Share, Strategy

MAX_PROMPT_CHARS = 200_000
MAX_ANSWER_CHARS = 200_000
MAX_LABELS = 200
MAX_KEY_CHARS = 200
MAX_LABEL_CHARS = 500
MAX_SCHEMA_CHARS = 100_000
MOST = 10**9
"""Of whatever is counted. JSON has larger numbers, which neither a ledger nor a float can hold."""
MOST_SECONDS = 10**9

AdapterName = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0, le=MOST)]
AtLeastOne = Annotated[int, Field(ge=1, le=MOST)]


class Value(BaseModel):
    """A frozen value that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Status(StrEnum):
    """How a decision ended."""

    ACCEPTED = "accepted"
    CACHED = "cached"
    REPLAYED = "replayed"
    DEGRADED = "degraded"
    FALLBACK = "fallback"
    BUDGET = "budget"
    EXPIRED = "expired"
    DEAD = "dead"
    CANCELLED = "cancelled"


class State(StrEnum):
    """Where an unfinished decision stands."""

    QUEUED = "queued"
    RUNNING = "running"
    ANSWERED = "answered"
    SETTLED = "settled"


class Complexity(StrEnum):
    """How hard a decision looks from its signals alone."""

    SIMPLE = "simple"
    MODERATE = "moderate"
    COMPLEX = "complex"
    EXPERT = "expert"


class Privacy(StrEnum):
    """How far a prompt may travel: ``high`` and ``maximum`` never leave the machine."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    MAXIMUM = "maximum"

    @property
    def stays_home(self) -> bool:
        """Whether cloud providers are out of the question."""
        return self in (Privacy.HIGH, Privacy.MAXIMUM)

    def at_least(self, other: Privacy) -> Privacy:
        """The stricter of two levels."""
        return max(self, other, key=_LEVELS.index)


_LEVELS = tuple(Privacy)


class CacheScope(StrEnum):
    """How far an earlier answer to the same question may come from."""

    OFF = "off"
    RUN = "run"
    SHARED = "shared"


class ChoiceOutput(Value):
    """One label of a closed set."""

    type: Literal[OutputType.CHOICE] = OutputType.CHOICE
    labels: tuple[str, ...] = Field(min_length=2, max_length=MAX_LABELS)

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> Self:
        if any(len(label) > MAX_LABEL_CHARS for label in self.labels):
            raise ValueError(f"a label may have at most {MAX_LABEL_CHARS} characters")
        if any(not label.strip() or label != label.strip() for label in self.labels):
            raise ValueError("labels must be non-empty and without surrounding blanks")
        if any("\0" in label for label in self.labels):
            raise ValueError("a label may hold no NUL character")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from one another")
        return self


class TextOutput(Value):
    """Text of at most ``max_tokens`` tokens, ended by any of ``stops``.

    ``temperature`` and ``top_p`` are how it is drawn, on lanes whose models leave that to the
    asker; what is absent is the lane's own.
    """

    type: Literal[OutputType.TEXT] = OutputType.TEXT
    max_tokens: AtLeastOne | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stops: tuple[Annotated[Stop, Field(max_length=200)], ...] | None = Field(
        default=None, max_length=16
    )
    min_chars: AtLeastOne = 1


class JsonOutput(Value):
    """A JSON value that holds to ``json_schema`` (JSON Schema 2020-12)."""

    type: Literal[OutputType.JSON] = OutputType.JSON
    json_schema: dict[str, Any]
    max_tokens: AtLeastOne | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None

    @model_validator(mode="after")
    def _schema_is_bounded(self) -> Self:
        if len(json.dumps(self.json_schema, default=str)) > MAX_SCHEMA_CHARS:
            raise ValueError(f"a JSON schema may have at most {MAX_SCHEMA_CHARS} characters")
        return self


Output = Annotated[ChoiceOutput | TextOutput | JsonOutput, Field(discriminator="type")]


class Signals(Value):
    """What the asker knows of the situation; the defaults are those of an ordinary one."""

    queue_length: Count = 0
    deadline_days: float = Field(default=30, allow_inf_nan=False)
    task_complexity: Literal["low", "medium", "high"] = "medium"
    dependencies: Count = 0
    creativity: bool = False
    multi_agent: bool = False
    novel: bool = False
    multi_file: bool = False
    complexity: Complexity | None = None
    """The class, where somebody knows it; absent: reckoned from kind and signals."""
    domain: str = Field(default="", max_length=64)
    """What it is about; one that is a speciality of the profile goes to its specialist."""
    urgency: Literal["low", "medium", "high"] = "medium"
    """``hybrid`` weighs the latency of urgent decisions twice, of others that can wait half."""
    estimated_tokens: AtLeastOne | None = None
    """Of question and answer together, to compare lanes by; absent: reckoned."""


class Payer(Value):
    """Whose money paid calls take, and how much of it they may take; absent bounds do not bind."""

    name: Name
    budget_usd: Dollars | None = None
    """All told, over all runs of a ledger."""
    per_day_usd: Dollars | None = None
    """Of the calendar (UTC)."""


class Preferences(Value):
    """What the asker wants of the routing."""

    privacy: Privacy = Privacy.LOW
    prefer_local: bool = True
    quality_critical: bool = False
    force_tier: str | None = None
    force_lane: str | None = None
    """The lane to start on; its tier is forced with it."""
    max_cost_usd: Dollars | None = None
    """What all paid calls for this decision together may cost."""
    payer: Payer | None = None
    """Who pays beside the run; set by whoever knows the asker, as the gateway does by its key."""
    cache: CacheScope = CacheScope.SHARED
    own_sample: bool = False
    """Whether the answer must be drawn for this decision alone: neither an earlier answer nor
    that of an identical question beside it may serve."""
    adapter: AdapterName | None = None
    """The LoRA adapter to answer with, instead of the kind's own; empty for none."""
    specialist: Name | None = None
    """The speciality whose lane is asked first; ``general`` for none. Beats kind and words."""
    preset: Name | None = None
    """Wishes of the profile under one name, for what is not stated here."""
    strategy: Strategy | None = None
    weights: Factors | None = None
    """Of the factors of ``hybrid``, instead of the profile's."""
    min_quality: Share | None = None
    """Lanes expected to do worse are left out."""
    max_latency_ms: Milliseconds | None = None
    """Lanes expected to take longer are left out."""
    classify: bool | None = None
    """Whether the small model looks at it before it is planned; absent: as the profile says."""
    stream: bool = False
    """Whether the asker wants to hear a text as it is written; no answer hangs on it."""


class Decision(Value):
    """One question to be answered.

    ``system`` is the constant part of the prompt, shared by all decisions of its template;
    ``prompt`` is the state, which comes last. ``key`` makes submission idempotent within the
    run. ``seed`` fixes how text is drawn. ``expected`` is what the asker's own rules hold to be
    right; it is never shown to a model and only measures accuracy. ``deadline_s`` counts from
    submission. ``fallback`` is what the asker wants if nothing better can be had.
    """

    kind: str = Field(min_length=1, max_length=64)
    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS)
    output: Output
    key: str = Field(min_length=1, max_length=MAX_KEY_CHARS)
    system: str = Field(default="", max_length=MAX_PROMPT_CHARS)
    template: str = Field(default="", max_length=100)
    agent_id: str = Field(default="", max_length=MAX_KEY_CHARS)
    day: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    """The simulated day, for budgets by agent and day."""
    signals: Signals = Signals()
    preferences: Preferences = Preferences()
    seed: int = Field(default=0, ge=-(2**63), lt=2**63)
    deadline_s: float | None = Field(default=None, gt=0, le=MOST_SECONDS)
    fallback: str | None = Field(default=None, max_length=MAX_ANSWER_CHARS)
    expected: str | None = Field(default=None, max_length=MAX_ANSWER_CHARS)

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        texts = (self.kind, self.prompt, self.key, self.system, self.template, self.agent_id,
                 self.fallback, self.expected)  # fmt: skip
        if any(text and "\0" in text for text in texts):
            raise ValueError("a decision may hold no NUL character")
        return self


class Hop(Value):
    """One lane of a plan and why it is there."""

    lane: str
    reason: str


class Plan(Value):
    """The lanes a decision may climb, in order, and what was considered on the way."""

    hops: tuple[Hop, ...] = Field(min_length=1)
    complexity: Complexity
    notes: tuple[str, ...] = ()

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes alone."""
        return tuple(hop.lane for hop in self.hops)


class Settled(Value):
    """What a producer gets back for a decision."""

    id: str
    key: str
    kind: str
    status: Status
    answer: str
    lane: str | None = None
    """The lane whose answer this is; ``None`` for a fallback."""
    reason: str = ""
    cost_micros: int = 0
    climbs: int = 0
    p_answer: float | None = None
    """The model's own probability of the chosen label."""


def output_for(
    catalog: Catalog,
    kind_name: str,
    *,
    labels: tuple[str, ...] | None = None,
    json_schema: dict[str, Any] | None = None,
    text: bool = False,
    max_tokens: int | None = None,
) -> Output:
    """The output a decision of this kind asks for: what is given, else the kind's own.

    Raises:
        InputError: the kind has no output of its own and none is given, or it is malformed.
    """
    kind = catalog.kind(kind_name)
    try:
        if labels is not None:
            return ChoiceOutput(labels=labels)
        if json_schema is not None:
            return JsonOutput(json_schema=json_schema, max_tokens=max_tokens or kind.max_tokens)
        if text or kind.output is OutputType.TEXT:
            return TextOutput(max_tokens=max_tokens or kind.max_tokens, stops=kind.stops)
        if kind.output is OutputType.CHOICE and kind.labels:
            return ChoiceOutput(labels=kind.labels)
        if kind.output is OutputType.JSON and kind.json_schema is not None:
            return JsonOutput(json_schema=kind.json_schema, max_tokens=kind.max_tokens)
    except ValidationError as error:
        raise InputError(one_line(error, f"output of kind {kind_name!r}")) from None
    raise InputError(
        f"kind {kind_name!r} has no output of its own: give choices, a JSON schema, or ask for text"
    )
