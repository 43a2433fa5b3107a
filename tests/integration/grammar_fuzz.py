"""A process that writes JSON by random schemas with random logits; it must not die of any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llama_cpp
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from config.catalog import Sampling
from config.errors import BackendError
from config.settings import load_settings
from tests.json_schemas import SCHEMAS, WORST
from workers.engine.drawing import Drawer, close_json
from workers.engine.grammar import MOST_TEXT, grammar
from workers.engine.vocabulary import Vocabulary
from workers.models import weights_path

TOKENS = 24


@contextmanager
def small_vocabulary() -> Iterator[Vocabulary]:
    """That of SmolLM2, without its weights."""
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    path = weights_path(load_settings(profile="tiny"), "smollm2-135m")
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    try:
        yield Vocabulary(model)
    finally:
        llama_cpp.llama_model_free(model)


def write(vocabulary: Vocabulary, schema: Any, seed: int, tokens: int = TOKENS) -> str:
    """What a model without a plan writes under the schema's grammar, at most so many tokens.

    Raises:
        BackendError: the schema gives no grammar.
    """
    rng = np.random.default_rng(seed)
    size = llama_cpp.llama_vocab_n_tokens(vocabulary.raw)
    drawer = Drawer(vocabulary.raw, Sampling(temperature=0), seed, json.dumps(schema))
    written = b""
    try:
        for _ in range(tokens):
            token = drawer.draw(rng.normal(0, 3, size).astype(np.float32))
            if vocabulary.ends(token):
                break
            drawer.accept(token)
            written += vocabulary.piece(token)
    finally:
        drawer.close()
    return written.decode(errors="ignore")


def main() -> None:
    """Write by the worst schemas and by random ones."""
    with small_vocabulary() as vocabulary:
        for seed, schema in enumerate(WORST):
            _try(vocabulary, schema, seed)

        @settings(
            max_examples=60, deadline=None, derandomize=True, database=None,
            phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(schema=SCHEMAS, seed=st.integers(0, 1000))
        def any_schema(schema: Any, seed: int) -> None:
            _try(vocabulary, schema, seed)

        any_schema()
    print("alive")


def _try(vocabulary: Vocabulary, schema: Any, seed: int) -> None:
    try:
        assert len(grammar(json.dumps(schema))) <= MOST_TEXT
        json.loads(close_json(write(vocabulary, schema, seed)))
    except BackendError as error:
        if error.retryable or "\n" in str(error):
            raise


if __name__ == "__main__":
    main()
