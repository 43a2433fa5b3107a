"""Writes text and JSON token by token, each decision with its own seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import llama_cpp
from llama_cpp.llama_grammar import json_schema_to_gbnf

from config.catalog import Sampling
from config.errors import BackendError
from routing.decision import JsonOutput
from workers.backends.base import Request
from workers.backends.llama_context import LlamaContext, Row


@dataclass(frozen=True)
class Written:
    """What a model wrote; ``truncated`` if the token limit ended it."""

    text: str
    tokens: int
    truncated: bool


def generate(context: LlamaContext, request: Request, position: int, sequence: int) -> Written:
    """Write on from the last decoded row of ``sequence``, whose next position is ``position``."""
    sampling = request.sampling
    # JSON ends where its grammar ends; a stop could cut a string in two.
    is_json = isinstance(request.output, JsonOutput)
    stops = [] if is_json else [stop.encode() for stop in sampling.stops]
    written = bytearray()
    with _sampler(context, request) as sampler:
        for count in range(1, sampling.max_tokens + 1):
            token = llama_cpp.llama_sampler_sample(sampler, context.handles.context, -1)
            if context.ends(token):
                return Written(_text(written), count, truncated=False)
            written += context.piece(token)
            cut = _stop_at(written, stops)
            if cut is not None:
                return Written(_text(written[:cut]), count, truncated=False)
            if count < sampling.max_tokens:
                context.decode([Row(token, position + count - 1, (sequence,), True)])
    return Written(_text(written), sampling.max_tokens, truncated=True)


def _stop_at(written: bytearray, stops: list[bytes]) -> int | None:
    """Where the first stop begins, not counting stops before any text."""
    start = len(written) - len(written.lstrip())
    found = [written.find(stop, start) for stop in stops]
    return min((place for place in found if place >= 0), default=None)


def _text(written: bytes | bytearray) -> str:
    return bytes(written).decode("utf-8", errors="ignore").strip()


@contextmanager
def _sampler(context: LlamaContext, request: Request) -> Iterator[Any]:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    try:
        if isinstance(request.output, JsonOutput):
            grammar = _grammar(json.dumps(request.output.json_schema, sort_keys=True))
            part = llama_cpp.llama_sampler_init_grammar(
                context.handles.vocab, grammar.encode(), b"root"
            )
            if not part:
                raise BackendError("the JSON schema gives no grammar", retryable=False)
            llama_cpp.llama_sampler_chain_add(chain, part)
        _add_drawing(chain, request.sampling, request.seed)
        yield chain
    finally:
        llama_cpp.llama_sampler_free(chain)


def _add_drawing(chain: Any, sampling: Sampling, seed: int) -> None:
    if sampling.temperature == 0:
        llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_greedy())
        return
    for part in (
        llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1),
        llama_cpp.llama_sampler_init_temp(sampling.temperature),
        llama_cpp.llama_sampler_init_dist(seed & 0xFFFFFFFF),
    ):
        llama_cpp.llama_sampler_chain_add(chain, part)


@lru_cache(maxsize=64)
def _grammar(schema: str) -> str:
    try:
        return str(json_schema_to_gbnf(schema))
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"the JSON schema gives no grammar: {error}", retryable=False) from None
