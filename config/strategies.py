"""How a lane is chosen where no rule says it: strategies, weights, presets, words, figures."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from config.prices import Dollars
from config.weights import Name, Strict

Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[int, Field(gt=0, le=10**12)]

_WORD = re.compile(r"[a-z0-9_]+")


class Strategy(StrEnum):
    """What decides where a decision starts, if neither rule, wish nor override does."""

    LOCAL_FIRST = "local_first"
    """The kind's own tier."""
    COST = "cost"
    """The cheapest lane."""
    QUALITY = "quality"
    """The best lane, the cheaper one of equals."""
    HYBRID = "hybrid"
    """The lane with the best weighted sum of factors."""


class Factors(Strict):
    """Weights of the factors of ``hybrid``; only their proportions matter, what is absent is 0."""

    complexity: Weight = 0
    """How far the lane is up to how hard the decision is."""
    cost: Weight = 0
    """How cheap the lane is."""
    latency: Weight = 0
    """How soon it answers."""
    quality: Weight = 0
    """How often its answers do."""
    privacy: Weight = 0
    """Whether prompts stay on the machine."""

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if not self.complexity + self.cost + self.latency + self.quality + self.privacy > 0:
            raise ValueError("weights are all zero: give at least one factor a weight above 0")
        return self


BALANCED = Factors(complexity=0.2, cost=0.3, latency=0.1, quality=0.3, privacy=0.1)


class Preset(Strict):
    """Wishes under one name. What a decision states itself goes before them, save privacy: of
    two levels the higher one holds."""

    strategy: Strategy | None = None
    """Instead of the profile's."""
    weights: Factors | None = None
    """Of ``hybrid``, instead of the profile's."""
    privacy: Literal["low", "medium", "high", "maximum"] = "low"
    """``high`` and ``maximum`` never leave the machine."""
    min_quality: Share | None = None
    """Lanes below it are passed over."""
    max_latency_ms: Milliseconds | None = None
    """Lanes above it are passed over."""


class Speciality(Strict):
    """Words that speak for a speciality, or, below zero, against it.

    A prompt belongs to it if ``bias``, the weights of its distinct words and ``number`` for each
    of its distinct numbers, up to ``most_numbers``, sum to more than 0.
    """

    bias: float = Field(default=-0.5, allow_inf_nan=False)
    """What the sum starts from."""
    number: float = Field(default=0, allow_inf_nan=False)
    """What each distinct number adds."""
    most_numbers: int = Field(default=4, ge=0)
    """How many numbers count."""
    words: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(min_length=1)
    """What each word adds, by the word."""

    @field_validator("words")
    @classmethod
    def _are_whole_words(cls, words: dict[str, float]) -> dict[str, float]:
        for word in words:
            if not _WORD.fullmatch(word):
                raise ValueError(f"{word!r} is no word of a-z, 0-9 and _: no prompt can hold it")
        return words


class QueryType(Strict):
    """A kind for prompts that name none: the first whose ``words`` hold one of the prompt's."""

    kind: Name
    """What the question is then."""
    words: tuple[str, ...] = Field(min_length=1)
    """One of them is enough."""


class Band(Strict):
    """What to expect of a model of which the catalog says nothing."""

    latency_ms: Milliseconds
    """Of an answer."""
    quality: Share
    """How often an answer does."""


class Bands(Strict):
    """Expected figures by sort of lane: the middles of 50-200 ms, 200-2,000 ms and 1-5 s."""

    fast: Band = Band(latency_ms=125, quality=0.6)
    """Local models on tiers of rank 1."""
    local: Band = Band(latency_ms=1_100, quality=0.75)
    """Other local models."""
    cloud: Band = Band(latency_ms=3_000, quality=0.9)
    """Models that are not local."""


class LocalCost(Strict):
    """What work on own machines costs: wear and power, which no budget is charged with."""

    usd_per_million_per_billion: Dollars = Decimal("0.01")
    """Per million tokens and billion parameters, for models without ``amortised_per_million``."""
    usd_per_adapter_switch: Dollars = Decimal("0.001")
    """For each adapter that has to be loaded."""
