"""Draws the next token of a text: temperature, top-p, seed, and a grammar for JSON."""

from __future__ import annotations

import ctypes
import json
from functools import lru_cache
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp.llama_grammar import json_schema_to_gbnf

from config.catalog import Sampling
from config.errors import BackendError
from workers.engine.context import Logits

TOP = 256
"""Candidates kept before top-p: what lies behind them has no weight that could be drawn."""
_TOKEN = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Drawer:
    """Draws the tokens of one text. Frees the library's samplers in :meth:`close`."""

    def __init__(self, vocab: Any, sampling: Sampling, seed: int, schema: str | None) -> None:
        self._greedy = sampling.temperature == 0
        self._sampling = sampling
        self._rng = np.random.default_rng(seed)
        self._grammar = None if schema is None else _grammar_sampler(vocab, schema)

    def draw(self, row: Logits) -> int:
        """The next token after the place of ``row``; call :meth:`accept` if it is used."""
        token = self._pick(row)
        if self._grammar is None or self._allowed(token):
            return token
        return self._pick(self._constrained(row))

    def accept(self, token: int) -> None:
        """Move the grammar on."""
        if self._grammar is not None:
            llama_cpp.llama_sampler_accept(self._grammar, token)

    def close(self) -> None:
        """Free the samplers."""
        if self._grammar is not None:
            llama_cpp.llama_sampler_free(self._grammar)
            self._grammar = None

    def _pick(self, row: Logits) -> int:
        if self._greedy:
            return int(row.argmax())
        top = np.argpartition(row, -TOP)[-TOP:] if row.size > TOP else np.arange(row.size)
        top = top[np.argsort(-row[top], kind="stable")]
        logits = row[top].astype(np.float64)
        weights = np.exp(logits - logits[0])
        # top-p of the whole distribution, as Holtzman et al. 2020 define it, before temperature
        whole = np.exp(row - row[top[0]]).sum(dtype=np.float64)
        before = np.cumsum(weights) - weights
        kept = before < self._sampling.top_p * whole
        cooled = np.exp((logits[kept] - logits[0]) / self._sampling.temperature)
        place = self._rng.random() * cooled.sum()
        return int(top[min(int(np.searchsorted(np.cumsum(cooled), place)), kept.sum() - 1)])

    def _allowed(self, token: int) -> bool:
        """Whether the grammar takes a token: far cheaper than asking it for all of them."""
        one = np.array([(token, 0.0, 0.0)], dtype=_TOKEN)
        self._apply(one)
        return bool(np.isfinite(one["logit"][0]))

    def _constrained(self, row: Logits) -> Logits:
        every = np.zeros(row.size, dtype=_TOKEN)
        every["id"] = np.arange(row.size)
        every["logit"] = row
        self._apply(every)
        found = np.empty_like(row)
        found[every["id"]] = every["logit"]
        if not np.isfinite(found).any():
            raise BackendError("the JSON schema allows no further token", retryable=False)
        return found

    def _apply(self, candidates: Any) -> None:
        data = candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        array = llama_cpp.llama_token_data_array(
            data=data, size=candidates.size, selected=-1, sorted=False
        )
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))


def close_json(text: str) -> str:
    """The text with its open strings, arrays and objects closed, so that it parses.

    For an answer that its token limit cut off; an unfinished member or number is dropped.
    """
    for end in range(len(text), 0, -1):
        candidate = text[:end].rstrip()
        closed = candidate + _closers(candidate)
        try:
            json.loads(closed)
        except ValueError:
            continue
        return closed
    return "null"


def _closers(text: str) -> str:
    stack: list[str] = []
    in_string = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif in_string:
            escaped = char == "\\"
            in_string = char != '"'
        elif char == '"':
            in_string = True
        elif char in "[{":
            stack.append("]" if char == "[" else "}")
        elif char in "]}" and stack:
            stack.pop()
    return ('"' if in_string else "") + "".join(reversed(stack))


def _grammar_sampler(vocab: Any, schema: str) -> Any:
    sampler = llama_cpp.llama_sampler_init_grammar(vocab, _grammar(schema).encode(), b"root")
    if not sampler:
        raise BackendError("the JSON schema gives no grammar", retryable=False)
    return sampler


@lru_cache(maxsize=64)
def _grammar(schema: str) -> str:
    try:
        return str(json_schema_to_gbnf(schema))
    except (AssertionError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackendError(f"the JSON schema gives no grammar: {error}", retryable=False) from None
