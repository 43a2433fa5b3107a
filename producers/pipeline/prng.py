"""Linear congruential generators and the sieve: which seeds would have drawn what was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from config.catalog import Strict

Ints = NDArray[np.int64]
SEEDS_AT_ONCE = 1 << 14
"""Seeds that are drawn from together: some 50 MB at 400 draws."""


class Generator(Strict):
    """``state = (multiplier * state + increment) mod 2^bits``; a draw is ``(state >> shift) mod
    range``. The sieve tries the seeds from 0 up to ``seeds``."""

    multiplier: int = Field(ge=1, lt=1 << 32)
    increment: int = Field(ge=0, lt=1 << 32)
    bits: int = Field(default=32, ge=8, le=32)
    shift: int = Field(default=0, ge=0, lt=32)
    range: int = Field(ge=2, le=1 << 20)
    seeds: int = Field(ge=2, le=1 << 20)

    @model_validator(mode="after")
    def _range_can_be_drawn(self) -> Self:
        if self.shift >= self.bits or self.range > 1 << (self.bits - self.shift):
            raise ValueError(f"range {self.range} is more than 2^(bits - shift) draws can reach")
        return self


class DrawData(Strict):
    """What was drawn, and the generator that is suspected of it."""

    description: str = ""
    generator: Generator
    draws: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=20, max_length=100_000)

    @model_validator(mode="after")
    def _draws_are_in_range(self) -> Self:
        over = [draw for draw in self.draws if draw >= self.generator.range]
        if over:
            raise ValueError(f"draw {over[0]} is not below the range {self.generator.range}")
        return self


def drawn(generator: Generator, seeds: Ints, count: int) -> Ints:
    """The first ``count`` draws of each seed: seeds by draws."""
    state = seeds.astype(np.uint64)
    mask = np.uint64((1 << generator.bits) - 1)
    found = np.empty((len(seeds), count), dtype=np.int64)
    for place in range(count):
        # Below 2^64: a multiplier and a state of 32 bits each, and an increment.
        state = (state * np.uint64(generator.multiplier) + np.uint64(generator.increment)) & mask
        shifted = state >> np.uint64(generator.shift)
        found[:, place] = (shifted % np.uint64(generator.range)).astype(np.int64)
    return found


def seeds_in_parts(generator: Generator) -> Iterator[Ints]:
    """All seeds that are tried, some at a time."""
    for start in range(0, generator.seeds, SEEDS_AT_ONCE):
        yield np.arange(start, min(start + SEEDS_AT_ONCE, generator.seeds), dtype=np.int64)


def hits(simulated: Ints, observed: Ints, modulus: int) -> NDArray[np.bool_]:
    """Where draws agree in their residue: seeds by draws."""
    same: NDArray[np.bool_] = simulated % modulus == observed[np.newaxis, :] % modulus
    return same
