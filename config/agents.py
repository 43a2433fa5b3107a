"""Agents of a profile: who asks in sessions, and what each of them wishes of the routing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.prices import Dollars
from config.weights import Name, Strict


class Agent(Strict):
    """An agent's wishes for all its requests; each session may change them for itself."""

    kind: Name = "conversation"
    """What its requests are; one that is answered in text."""
    preset: Name | None = None
    """Wishes that hold where it states none itself."""
    privacy: Literal["low", "medium", "high", "maximum"] = "low"
    """The stricter of this and the preset's holds."""
    adapter: Name | None = None
    """The LoRA adapter that answers it, once that has a file."""
    max_cost_usd: Dollars | None = None
    """What all paid calls for one request may cost."""
    prefer_local: bool = True
    """Whether local lanes are tried first."""
    classify: bool | None = None
    """Whether the small model looks at each request first; absent: as the profile says."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of an answer, instead of its kind's."""
    system: str = Field(default="", max_length=20_000)
    """What the model is told before every request."""
