"""Draws the next token of a text: temperature, top-p, seed, and a grammar for JSON."""

from __future__ import annotations

import ctypes
import json
import math
import re
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from config.catalog import Sampling
from config.errors import BackendError
from workers.engine.context import Logits
from workers.engine.grammar import grammar

NEVER_DRAWN = 1e-9
"""Tokens that together are drawn more seldom than this, at their temperature, are not looked at."""

Tokens = NDArray[np.int64]
_INSIDE = (
    r'(?:[^"\\]++|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    # half of a surrogate pair, unless the text ends before the other half
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}(?!(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z))*+"
)
_JSON_TOKEN = re.compile(
    rf"\s*+(?:(?P<open>[\[{{])|(?P<close>[\]}}])|(?P<comma>,)|(?P<colon>:)"
    rf'|(?P<string>"{_INSIDE}")|(?P<cut>"{_INSIDE})|(?P<scalar>[^\s\[\]{{}},:"]++))',
    re.DOTALL,
)
_ALL = 2**64 - 1
_TOKEN = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Drawer:
    """Draws the tokens of one text. Frees the library's samplers in :meth:`close`."""

    def __init__(self, vocab: Any, sampling: Sampling, seed: int, schema: str | None) -> None:
        self._greedy = sampling.temperature == 0
        self._sampling = sampling
        self._seed = seed
        self._step = 0
        self._grammar = None if schema is None else _grammar_sampler(vocab, schema)

    def draw(self, row: Logits) -> int:
        """The next token after the place of ``row``; call :meth:`accept` if it is used."""
        token = self._pick(row)
        if self._grammar is None or self._allowed(token):
            return token
        return self._pick(self._constrained(row))

    def accept(self, token: int) -> None:
        """Move on: the next draw has noise of its own, and the grammar its next state."""
        self._step += 1
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
        tokens, logits = self._candidates(row)
        noise = gumbel(self._seed, self._step, tokens)
        return int(tokens[np.argmax(logits / self._sampling.temperature + noise)])

    def _candidates(self, row: Logits) -> tuple[Tokens, NDArray[np.float64]]:
        """The tokens that may be drawn, and their logits."""
        best, top_p = float(row.max()), self._sampling.top_p
        floor = best + self._sampling.temperature * math.log(NEVER_DRAWN / row.size)
        if top_p == 1:
            tokens = np.flatnonzero(row > floor)
            return tokens, row[tokens].astype(np.float64)
        # top-p of the whole distribution, as Holtzman et al. 2020 define it, before temperature
        whole = float(np.exp(row - best).sum(dtype=np.float64))
        # All below this together are less than what top-p leaves out, so none of them is in it.
        floor = max(floor, best + math.log((1 - top_p) * whole / row.size))
        tokens = np.flatnonzero(row >= min(floor, best))
        tokens = tokens[np.argsort(-row[tokens], kind="stable")]
        logits = row[tokens].astype(np.float64)
        weights = np.exp(logits - best)
        kept = np.cumsum(weights) - weights < top_p * whole
        return tokens[kept], logits[kept]

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


def gumbel(seed: int, step: int, tokens: Tokens) -> NDArray[np.float64]:
    """Gumbel noise of each token at a step of a text: the same in whatever company, and whatever
    the logits are.

    The token with the greatest sum of logit and noise is drawn as often as softmax would have it
    (the Gumbel-max trick: Gumbel 1954; Maddison, Tarlow and Minka 2014). A small change of the
    logits then changes the draw only where two sums are as close, while cutting the interval from
    0 to 1 by the order of the logits moves all of it whenever two of them swap. The noise is a
    hash of its place (SplitMix64 of Steele, Lea and Flood 2014), so no draw depends on another.
    """
    key = _mixed(_mixed(np.array([seed & _ALL], dtype=np.uint64)) + np.uint64(step))
    hashed = _mixed(_mixed(key + tokens.astype(np.uint64)))
    uniform = ((hashed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return -np.log(-np.log(uniform))


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A step of SplitMix64: its increment, then its finaliser."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def close_json(text: str) -> str:
    """The text with its open strings, arrays and objects closed, so that it parses.

    For an answer that its token limit cut off; in time linear in its length. The unfinished
    member is dropped, and so is a last number or literal that nothing ends: the rest of it may
    be missing. A text is given back as it is exactly if it was whole.
    """
    if _is_whole(text):
        return text
    end, quote = _sure(text)
    closed = text[:end] + quote + _closers(text[:end])
    try:
        json.loads(closed)
    except (ValueError, RecursionError):
        return "null"
    return closed


def _is_whole(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, str | list | dict)


def _sure(text: str) -> tuple[int, str]:
    """Where what stays true however the text goes on ends, and the quote that is lacking there."""
    end, is_key = 0, False
    inside: list[str] = []
    for token in _JSON_TOKEN.finditer(text):
        match token.lastgroup:
            case "open":
                inside.append(token["open"])
                is_key, end = token["open"] == "{", token.end()
            case "close":
                del inside[-1:]
                end = token.end()
            case "comma":
                is_key, end = inside[-1:] == ["{"], token.start("comma")
            case "colon":
                is_key = False
            case "string":
                end = end if is_key else token.end()
            case "cut":
                return (end, "") if is_key else (token.end(), '"')
    return end, ""


def _closers(text: str) -> str:
    stack: list[str] = []
    for token in _JSON_TOKEN.finditer(text):
        if token["open"]:
            stack.append("]" if token["open"] == "[" else "}")
        elif token["close"] and stack:
            stack.pop()
    return "".join(reversed(stack))


def _grammar_sampler(vocab: Any, schema: str) -> Any:
    sampler = llama_cpp.llama_sampler_init_grammar(vocab, grammar(schema).encode(), b"root")
    if not sampler:
        raise BackendError("the JSON schema gives no grammar", retryable=False)
    return sampler
