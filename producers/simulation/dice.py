"""Chance from a seed: the same seed, stream and order of draws give the same draws, always."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import TypeVar

T = TypeVar("T")


def seed_of(seed: int, name: str) -> int:
    """A non-negative 31-bit number that depends on ``seed`` and ``name`` alone."""
    digest = blake2b(f"{seed}:{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) & 0x7FFF_FFFF


class Dice:
    """One stream of draws.

    Only ``Random.random`` is used: it is the one method whose sequence Python promises to keep
    from one version to the next.
    """

    def __init__(self, seed: int, stream: str) -> None:
        self.random = Random(seed_of(seed, stream))
        self._draw = self.random.random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._draw() < probability

    def below(self, bound: int) -> int:
        """A whole number from 0 to ``bound - 1``."""
        return int(self._draw() * bound)

    def between(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely as any other."""
        return options[self.below(len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a random order (Fisher and Yates)."""
        deck = list(items)
        for last in range(len(deck) - 1, 0, -1):
            other = self.below(last + 1)
            deck[last], deck[other] = deck[other], deck[last]
        return deck
