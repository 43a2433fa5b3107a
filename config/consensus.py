"""Consensus: lanes whose answer only counts if other lanes say the same."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Annotated

from pydantic import Field

from config.weights import Name, Strict


class Consensus(Strict):
    """A lane's policy: its own model and ``members`` form a panel that votes on each answer."""

    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=8)]
    """The lanes that vote beside it."""
    agree: float = Field(default=0.66, gt=0.5, le=1)
    """Share of the whole panel that must say the same; above half, so that only one can win."""
    kinds: tuple[Name, ...] = ()
    """Kinds that it is for; empty: all that the lane answers."""

    @property
    def size(self) -> int:
        """How many vote: the lane itself and its members."""
        return len(self.members) + 1

    @property
    def needed(self) -> int:
        """How many must agree."""
        return math.ceil(self.agree * self.size - 1e-9)


def consensus_fault(
    lane: str, consensus: Consensus, lanes: Container[str], kinds: Container[str]
) -> str | None:
    """What is wrong with the panel of a lane, with the mend, or ``None``."""
    place = f"lanes.{lane}.consensus"
    for member in consensus.members:
        if member not in lanes:
            return f"{place}.members names {member!r}, which is no lane: drop it or define it"
    if lane in consensus.members:
        return f"{place}.members names the lane itself, which votes anyway: drop it"
    if len(set(consensus.members)) < len(consensus.members):
        return f"{place}.members names a lane twice: each votes once"
    for kind in consensus.kinds:
        if kind not in kinds:
            return f"{place}.kinds names {kind!r}, which is no kind: drop it or define it"
    return None
