"""Writes LoRA adapters with random values, as GGUF files that llama.cpp loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.unit.gguf_file import write_file

SMOLLM2_WIDTH = 576
RANK = 4


def write_lora(
    path: Path, seed: int, *, width: int = SMOLLM2_WIDTH, layers: int = 6, strength: float = 0.1
) -> Path:
    """An adapter of the attention's outputs of the first layers; ``seed`` says which way it pulls.

    ``strength`` is the spread of both factors' values; the default moves logits by a unit or two.
    """
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(layers):
        name = f"blk.{layer}.attn_output.weight"
        for side, shape in (("lora_a", (RANK, width)), ("lora_b", (width, RANK))):
            drawn = rng.standard_normal(shape) * strength
            tensors[f"{name}.{side}"] = drawn.astype(np.float32)
    metadata = {
        "general.type": "adapter",
        "general.architecture": "llama",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(2 * RANK),
    }
    write_file(path, metadata, tensors)
    return path
