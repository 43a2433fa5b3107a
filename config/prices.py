"""Prices of tokens, and what calls cost by them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated

from pydantic import Field

from config.weights import Strict

Dollars = Annotated[Decimal, Field(ge=0, le=10**12)]
"""More than there is; as micro-dollars it still fits into the 64 bits of a ledger's column."""


class Price(Strict):
    """Dollars per million tokens, which is micro-dollars per token."""

    input: Dollars = Decimal(0)
    """A million tokens of prompts."""
    output: Dollars = Decimal(0)
    """A million tokens of answers."""
    cached_input: Dollars | None = None
    """A million tokens of prompts that the provider had kept; absent: as ``input``."""
    cache_write: Dollars | None = None
    """A million tokens that it is told to keep; absent: as ``input``."""

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
