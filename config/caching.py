"""How answers are kept and found again: the ``[cache]`` table of a profile."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated

from pydantic import Field, field_validator

from config.weights import Strict

Seconds = Annotated[float, Field(gt=0)]


class EmbedderName(StrEnum):
    """What turns a prompt into a vector, on this machine."""

    NGRAMS = "ngrams"
    """Counts of letter sequences, hashed: no model. It sees wording, not meaning."""
    WORDLLAMA = "wordllama"
    """Static word vectors that the package ``wordllama`` ships; the extra ``semantic``."""


class CacheRules(Strict):
    """Bounds of the cache, and of its semantic layer where a kind has that."""

    max_entries: int = Field(default=10_000, ge=1)
    """Beyond it the answers go that were used least recently."""
    ttl_s: Seconds | None = None
    """How long an answer may serve; absent: until model, template or policy change."""
    degraded_ttl_s: Seconds = 3600
    """How long a choice that no lane of its plan answered above the bar is not asked again."""
    embedder: EmbedderName = EmbedderName.NGRAMS
    """What tells how alike two prompts are."""
    similarity: float = Field(default=0.95, gt=0, le=1)
    """Cosine from which two prompts count as one question."""
    audit_share: float = Field(default=0.05, gt=0, le=1)
    """Of the semantic hits: so many are answered for real all the same, and compared."""
    agreement_floor: float = Field(default=0.9, gt=0, lt=1)
    """Semantic hits serve while agreement is at least this, with ``confidence``."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """How sure that has to be."""
    audit_window: int = Field(default=500, ge=30)
    """The newest audits of a kind that are looked at."""

    @field_validator("embedder")
    @classmethod
    def _embedder_is_installed(cls, value: EmbedderName) -> EmbedderName:
        if value is EmbedderName.WORDLLAMA and find_spec("wordllama") is None:
            raise ValueError(
                "wordllama is not installed: pip install 'uptier[semantic]', or take "
                f"{EmbedderName.NGRAMS.value!r}"
            )
        return value
