"""What a model takes of a card: weights + key-value cache + CUDA context + workspace."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from config.catalog import BackendName, CacheType, Lane, Model, Shape
from config.errors import WeightsError
from config.settings import Settings
from workers.models import original_path, weights_path

MIB = 1 << 20
CONTEXT_MB = 307
"""A CUDA context: 0.3 GB a process."""
WORKSPACE_MB = 205
"""Buffers of a pass: 0.2 GB a process."""
PREFIX_CELLS = 4096
"""Room of the engine beside the context proper, for the constant parts of many templates and for
batches."""
BYTES = {
    CacheType.F32: 4.0, CacheType.F16: 2.0, CacheType.BF16: 2.0, CacheType.Q8_0: 34 / 32,
    CacheType.Q5_1: 24 / 32, CacheType.Q5_0: 22 / 32, CacheType.Q4_1: 20 / 32,
    CacheType.Q4_0: 18 / 32,
}  # fmt: skip
"""Of an element; the quantized ones are blocks of 32 with a scale (ggml's ``block_q8_0`` etc.)."""
BITS = {
    "F32": 32.0, "BF16": 16.0, "F16": 16.0, "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.7,
    "Q5_K_S": 5.57, "Q5_1": 6.0, "Q5_0": 5.5, "Q4_K_M": 4.89, "Q4_K_S": 4.67, "Q4_1": 5.0,
    "Q4_0": 4.66, "IQ4_XS": 4.46, "Q3_K_L": 4.3, "Q3_K_M": 4.0, "Q3_K_S": 3.64, "IQ3_XXS": 3.25,
    "Q2_K": 3.16, "IQ2_XS": 2.59, "IQ2_XXS": 2.38,
}  # fmt: skip
"""Of a weight on average, by format; source: llama.cpp's table for an 8B model (tools/quantize)."""
_FORMAT = re.compile("|".join(rf"(?<![A-Z0-9]){name}(?![A-Z0-9])" for name in BITS))


@dataclass(frozen=True)
class Need:
    """What one process takes, in MB of 2**20 bytes.

    ``weights_mb`` is weights and cache together, and ``cache_mb`` is ``None``, where the catalog
    only tells their sum.
    """

    weights_mb: int
    cache_mb: int | None = None
    context_mb: int = CONTEXT_MB
    workspace_mb: int = WORKSPACE_MB

    @property
    def total_mb(self) -> int:
        """All of it."""
        return self.memory_mb + self.context_mb + self.workspace_mb

    @property
    def memory_mb(self) -> int:
        """What it takes without a card."""
        return self.weights_mb + (self.cache_mb or 0)

    def __str__(self) -> str:
        first = "weights and cache" if self.cache_mb is None else "weights"
        parts = [f"{gb(self.weights_mb)} {first}"]
        if self.cache_mb is not None:
            parts.append(f"{gb(self.cache_mb)} cache")
        parts += [f"{gb(self.context_mb)} context", f"{gb(self.workspace_mb)} workspace"]
        return " + ".join(parts)


def gb(megabytes: int) -> str:
    """MB as GB of 1,024 MB, with one decimal."""
    return f"{megabytes / 1024:.1f}"


def need(model: Model, lane: Lane, file_bytes: int | None, shape: Shape | None) -> Need | None:
    """What a worker of the lane takes of a card; ``None`` if nobody knows.

    ``file_bytes`` and ``shape`` are those of the weights, where they are here; the catalog's word
    goes before both, and its ``vram_mb`` is what is left where one of the terms is missing.
    """
    weights, cache = weights_mb(model, file_bytes), cache_mb(model, lane, model.shape or shape)
    if weights is None or cache is None:
        return None if model.vram_mb is None else Need(model.vram_mb)
    return _offloaded(Need(weights, cache), model, model.shape or shape)


def weights_mb(model: Model, file_bytes: int | None) -> int | None:
    """The catalog's word, else the file's size, else parameters times the bits of its format."""
    if model.weights_mb is not None:
        return model.weights_mb
    size = file_bytes or (model.weights.size if model.weights is not None else None)
    if size is None and model.parameters_b is not None and model.weights is not None:
        found = _FORMAT.search(model.weights.file.upper())
        size = None if found is None else int(model.parameters_b * 1e9 * BITS[found[0]] / 8)
    return None if size is None else math.ceil(size / MIB)


def cache_mb(model: Model, lane: Lane, shape: Shape | None) -> int | None:
    """2 (key and value) x layers x key-value heads x head size x bytes an element x tokens."""
    if model.cache_mb is not None:
        return model.cache_mb
    if shape is None:
        return None
    elements = 2 * shape.layers * shape.kv_heads * shape.head_size
    each = BYTES[model.cache_type or CacheType.F16]
    return math.ceil(elements * each * cells(model, lane.slots) / MIB)


def cells(model: Model, slots: int) -> int:
    """Tokens of which keys and values are kept.

    The engine shares one context among all its sequences; others keep a context for each slot.
    """
    if model.backend is BackendName.LLAMA_CPP:
        return model.context + PREFIX_CELLS
    return model.context * slots


def lane_needs(settings: Settings, *, prepared: bool = True) -> dict[str, Need | None]:
    """The need of a worker of each lane, with what the weights on this machine tell.

    Without ``prepared`` it is that of the weights as they came, and nothing is hashed.

    Raises:
        WeightsError: a file is not a model.
    """
    lanes = settings.catalog.lanes.items()
    return {name: _need_here(settings, lane, prepared) for name, lane in lanes}


def _need_here(settings: Settings, lane: Lane, prepared: bool) -> Need | None:
    model = settings.catalog.models[lane.model]
    path = _file(settings, lane.model, prepared) if model.weights is not None else None
    if path is None:
        return need(model, lane, None, None)
    known = model.shape is not None or model.cache_mb is not None
    return need(model, lane, path.stat().st_size, None if known else _shape_of(path))


def _file(settings: Settings, model: str, prepared: bool) -> Path | None:
    """The file that a worker would load; ``None`` while it is not here."""
    path, weights = original_path(settings, model), settings.catalog.models[model].weights
    if not path.is_file():
        return None
    if weights is None or not weights.formats or not prepared:
        return path
    try:
        return weights_path(settings, model)  # hashes it, unless that was done before
    except WeightsError:
        return path


def _shape_of(path: Path) -> Shape | None:
    from workers.engine.limits import shape_of  # loads llama.cpp, which most plans do without

    return shape_of(path)


def _offloaded(whole: Need, model: Model, shape: Shape | None) -> Need:
    """Of a model that puts only some of its layers on the card, their share."""
    if model.gpu_layers <= 0 or shape is None:
        return whole
    share = min(1.0, model.gpu_layers / (shape.layers + 1))  # the head counts as one
    cache = None if whole.cache_mb is None else math.ceil(whole.cache_mb * share)
    return Need(math.ceil(whole.weights_mb * share), cache)
