"""What a model can do at all, asked of its file before the weights are loaded."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import llama_cpp

from config.catalog import Shape
from config.errors import ConfigurationError, WeightsError
from workers.engine.context import silence

LONGEST = 128
"""Characters of a value that is asked for."""

Read = Callable[[str], str | None]
"""The value of a metadata key, without the architecture's name in front; ``None`` if absent."""


def check_model(path: Path, name: str, context: int) -> None:
    """Refuse a model that the engine cannot serve with prompts of up to ``context`` tokens.

    Raises:
        ConfigurationError: the context is longer than the model was trained for, or the model
            keeps a running state, of which no beginning can be shared.
        WeightsError: the file is not a model.
    """
    with _metadata(path) as model:
        if llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model):
            raise ConfigurationError(
                f"models.{name}: {path.name} is recurrent ({_value(model, 'general.architecture')})"
                ", and no beginning of a prompt can be shared in it: serve it with backend "
                "'llama_server' or 'ollama'"
            )
        most = trained_for(_reader(model))
    if most is not None and context > most:
        raise ConfigurationError(
            f"models.{name}: context {context} exceeds the {most} tokens that {path.name} was "
            f"made for: set context to {most} at most"
        )


def shape_of(path: Path) -> Shape | None:
    """What a model's key-value cache depends on; ``None`` where layers differ in it.

    Raises:
        WeightsError: the file is not a model.
    """
    with _metadata(path) as model:
        return shape(_reader(model))


def shape(read: Read) -> Shape | None:
    """The shape that metadata tell. Source: llama.cpp's ``llama_hparams``, where heads of keys
    and values are all heads, and their size is the width's share, unless the file says otherwise.
    """
    layers, heads = _number(read("block_count")), _number(read("attention.head_count"))
    kv_heads = _number(read("attention.head_count_kv") or read("attention.head_count"))
    width, size = _number(read("embedding_length")), _number(read("attention.key_length"))
    if size is None and width is not None and heads is not None:
        size = width / heads
    if layers is None or kv_heads is None or size is None:
        return None
    return Shape(layers=int(layers), kv_heads=int(kv_heads), head_size=int(size))


def trained_for(read: Read) -> int | None:
    """The tokens of the longest prompt that a model understands; ``None`` if its file is silent.

    YaRN stretches what the model was trained for by a factor; files of such models tell of the
    length before or after it, so the longer counts. In all other kinds of scaling the file's
    ``context_length`` is the length after it. Source: llama.cpp's ``hparams.n_ctx_orig_yarn``,
    and Peng et al., *YaRN*, 2023, section 3.
    """
    length = _number(read("context_length"))
    if length is None:
        return None
    factor = _number(read("rope.scaling.factor"))
    if read("rope.scaling.type") != "yarn" or factor is None:
        return int(length)
    original = _number(read("rope.scaling.original_context_length")) or length
    return int(max(length, original * factor))


@contextmanager
def _metadata(path: Path) -> Iterator[Any]:
    silence()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True  # metadata and tokens; a tenth of a second
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise WeightsError(f"{path} is not a model that llama.cpp can load: pull it again")
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)


def _reader(model: Any) -> Read:
    family = _value(model, "general.architecture")
    return lambda key: _value(model, f"{family}.{key}")


def _value(model: Any, key: str) -> str | None:
    buffer = ctypes.create_string_buffer(LONGEST)
    count = llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, LONGEST)
    return buffer.value.decode(errors="replace") if count >= 0 else None


def _number(text: str | None) -> float | None:
    """A positive number, if the text is one."""
    with suppress(ValueError):
        found = float(text or 0)
        return found if 0 < found < float("inf") else None
    return None
