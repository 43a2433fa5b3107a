"""Writes a GGUF file of a llama model so small that its random weights answer in a millisecond."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, INNER, HEADS, LAYERS, CONTEXT = 64, 128, 2, 1, 512
UINT32, INT32, FLOAT32, STRING, ARRAY = 4, 5, 6, 8, 9
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
ALIGNMENT = 32

TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁"]
TYPES = [UNKNOWN, CONTROL, CONTROL, *([BYTE] * 256), NORMAL]


def write_gguf(path: Path, seed: int = 0) -> None:
    """A file of full precision that llama.cpp loads, runs and converts."""
    write_file(path, _metadata(), _tensors(np.random.default_rng(seed)))


def write_file(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Any GGUF file; tensors are float32, of rows by columns."""
    content = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    content += b"".join(_string(key) + _value(value) for key, value in metadata.items())
    offset = 0
    for name, tensor in tensors.items():
        dims = tensor.shape[::-1]
        content += _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, offset)
        offset += _padded(tensor.nbytes)
    content += bytes(-len(content) % ALIGNMENT)
    data = (t.tobytes() + bytes(_padded(t.nbytes) - t.nbytes) for t in tensors.values())
    path.write_bytes(content + b"".join(data))


def _metadata() -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "general.file_type": 0,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.scores": [0.0] * len(TOKENS),
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def _tensors(random: np.random.Generator) -> dict[str, Any]:
    def matrix(rows: int, columns: int) -> Any:
        # Small enough that rounding does not grow from layer to layer.
        return (random.standard_normal((rows, columns)) / columns).astype(np.float32)

    ones = np.ones(WIDTH, dtype=np.float32)
    found = {"token_embd.weight": matrix(len(TOKENS), WIDTH), "output_norm.weight": ones}
    found["output.weight"] = matrix(len(TOKENS), WIDTH) * WIDTH
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        for name in ("attn_norm", "ffn_norm"):
            found[f"{block}{name}.weight"] = ones
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found[f"{block}{name}.weight"] = matrix(WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            found[f"{block}{name}.weight"] = matrix(INNER, WIDTH)
        found[f"{block}ffn_down.weight"] = matrix(WIDTH, INNER)
    return found


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind = INT32 if isinstance(value[0], int) else _scalar(value[0])[0]
        items = b"".join(_scalar(item)[1] for item in value)
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + items
    kind, raw = _scalar(value)
    return struct.pack("<I", kind) + raw


def _scalar(value: str | int | float) -> tuple[int, bytes]:
    if isinstance(value, str):
        return STRING, _string(value)
    if isinstance(value, int):
        return UINT32, struct.pack("<I", value)
    return FLOAT32, struct.pack("<f", value)


def _padded(size: int) -> int:
    return size + -size % ALIGNMENT
