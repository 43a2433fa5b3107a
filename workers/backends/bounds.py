"""The most that a call can cost, known before it is made."""

from __future__ import annotations

from config.catalog import Price

OVERHEAD_TOKENS = 600
"""What a provider puts around a question: roles, and the prompt that explains tools."""


def most_cost(price: Price, texts: tuple[str, ...], tokens_out: int) -> int:
    """The most that reading ``texts`` and writing ``tokens_out`` tokens can cost, micro-dollars.

    No tokenizer makes more than one token of a byte. Reading a cached token or writing one to
    the cache may be dearer than reading it plainly, so the dearest of the three counts.
    """
    tokens_in = OVERHEAD_TOKENS + sum(len(text.encode()) for text in texts)
    return max(
        price.micros(tokens_in, tokens_out),
        price.micros(0, tokens_out, cached_in=tokens_in),
        price.micros(0, tokens_out, cache_writes=tokens_in),
    )
