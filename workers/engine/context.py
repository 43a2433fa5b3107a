"""A llama.cpp context on the library's low-level bindings: spans of tokens in, logits out.

Not thread-safe: one owner. The batch is a set of numpy arrays that the library reads in place.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from config.errors import BackendError, WeightsError
from workers.turns import CpuTurns

Logits = npt.NDArray[np.float32]
Tokens = Sequence[int]

NO_ROOM = 1
BAD_BATCH = -1


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """llama.cpp writes pages to standard error while it loads."""


def silence() -> None:
    """Keep llama.cpp's log off standard error."""
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))


@dataclass(frozen=True)
class Span:
    """Successive tokens of a batch, from position ``start`` on, that belong to ``sequences``.

    ``wanted`` says whether the logits after its last token are wanted.
    """

    tokens: Tokens
    start: int
    sequences: tuple[int, ...]
    wanted: bool = False


@dataclass(frozen=True)
class Shape:
    """How large a context is. ``cells`` is the room for tokens of all sequences together."""

    cells: int
    batch: int = 2048
    micro_batch: int = 512
    sequences: int = 256
    threads: int = 1
    gpu_layers: int = 0


class NoRoom(BackendError):
    """The context's cells are all in use; nothing was changed."""


class BadBatch(BackendError):
    """The library refused a batch; nothing was changed."""


class ContextLost(BackendError):
    """The context is in an unknown state and has to be made anew."""


class LlamaContext:
    """One model and one context.

    With ``turns`` each forward pass waits for the CPU cores to be free of other lanes' passes.
    """

    def __init__(self, path: Path, shape: Shape, turns: CpuTurns | None = None) -> None:
        silence()
        llama_cpp.llama_backend_init()
        self.shape = shape
        self._path = path
        self._turns = turns
        self.model = _load(path, shape.gpu_layers)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self._batch = _Batch(shape.batch, shape.sequences)
        self.raw: Any = None
        self._memory: Any = None
        self._open()

    def reopen(self) -> None:
        """A new context on the loaded model; everything computed is gone."""
        llama_cpp.llama_free(self.raw)
        self._open()

    def decode(self, spans: Sequence[Span]) -> Logits:
        """Run spans through the model; one row of ``vocab_size`` logits for each wanted one.

        The rows are in the order of the spans, and a view that the next decode overwrites.

        Raises:
            NoRoom: too few free cells; nothing was changed.
            BadBatch: a span has a gap or a wrong sequence; nothing was changed.
            ContextLost: anything worse.
        """
        wanted = self._batch.fill(spans)
        with self._turns.turn() if self._turns is not None else nullcontext():
            code = llama_cpp.llama_decode(self.raw, self._batch.raw)
        if code == NO_ROOM:
            raise NoRoom(f"no room for {self._batch.size} more tokens")
        if code == BAD_BATCH:
            raise BadBatch("llama.cpp refused the batch", retryable=False)
        if code != 0:  # aborted (2) or worse: parts of the batch may be in the context
            raise ContextLost(f"llama_decode failed with code {code}")
        if not wanted:
            return np.empty((0, self.vocab_size), dtype=np.float32)
        pointer = llama_cpp.llama_get_logits(self.raw)
        return np.ctypeslib.as_array(pointer, shape=(wanted, self.vocab_size))

    def share(self, source: int, target: int, end: int = -1, start: int = 0) -> None:
        """Let ``target`` see the tokens of ``source`` from ``start`` to before ``end``."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, start, end)

    def forget(self, sequence: int) -> None:
        """Drop all tokens of a sequence that no other one shares."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def clear(self) -> None:
        """Drop everything."""
        llama_cpp.llama_memory_clear(self._memory, True)

    def adapt(self, adapter: Any | None) -> None:
        """Use a LoRA adapter from the next decode on, or none."""
        if adapter is None:
            llama_cpp.llama_set_adapters_lora(self.raw, None, 0, None)
            return
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
        scales = (ctypes.c_float * 1)(1.0)
        if llama_cpp.llama_set_adapters_lora(self.raw, adapters, 1, scales) != 0:
            raise BackendError("the adapter does not fit the model", retryable=False)

    def close(self) -> None:
        """Free the context; the model stays for whoever reads its vocabulary."""
        llama_cpp.llama_free(self.raw)
        if self._turns is not None:
            self._turns.close()

    def free_model(self) -> None:
        """Free the model, after the context and when nobody reads it any more."""
        llama_cpp.llama_model_free(self.model)

    def _open(self) -> None:
        shape = self.shape
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = shape.cells
        params.n_batch = shape.batch
        params.n_ubatch = min(shape.micro_batch, shape.batch)
        params.n_seq_max = shape.sequences
        params.n_threads = params.n_threads_batch = shape.threads
        params.kv_unified = True
        # Skips what a row does not attend to: most of a context that many sequences share.
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.swa_full = bool(llama_cpp.llama_model_n_swa(self.model) > 0)
        params.no_perf = True
        # Must cover the wanted rows of one decode and a row a sequence, or the process aborts.
        params.n_outputs_max = max(shape.batch, shape.sequences)
        self.raw = llama_cpp.llama_init_from_model(self.model, params)
        if not self.raw:
            raise WeightsError(
                f"{self._path}: no context of {shape.cells} tokens fits into memory: make the "
                "model's `context` smaller"
            )
        self._memory = llama_cpp.llama_get_memory(self.raw)


class _Batch:
    """One ``llama_batch`` whose arrays are numpy's."""

    def __init__(self, rows: int, sequences: int) -> None:
        self.size = 0
        self._rows = rows
        self._tokens = np.zeros(rows, dtype=np.int32)
        self._positions = np.zeros(rows, dtype=np.int32)
        self._counts = np.ones(rows, dtype=np.int32)
        self._wanted = np.zeros(rows, dtype=np.int8)
        # A row's sequences lie in a table of their own: most rows have one, few have many.
        self._sequences = np.zeros((rows, sequences), dtype=np.int32)
        first = self._sequences.ctypes.data
        step = self._sequences.strides[0]
        self._pointers = first + step * np.arange(rows, dtype=np.uint64)
        self.raw = llama_cpp.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._positions, ctypes.c_int32),
            n_seq_id=_pointer(self._counts, ctypes.c_int32),
            seq_id=_pointer(self._pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._wanted, ctypes.c_int8),
        )

    def fill(self, spans: Sequence[Span]) -> int:
        """Lay spans out as rows; how many rows want their logits."""
        row = wanted = 0
        for span in spans:
            end = row + len(span.tokens)
            if end > self._rows:  # the library would abort the process
                raise BadBatch(f"a batch of over {self._rows} rows", retryable=False)
            self._tokens[row:end] = span.tokens
            self._positions[row:end] = np.arange(span.start, span.start + end - row)
            self._counts[row:end] = len(span.sequences)
            self._sequences[row:end, : len(span.sequences)] = span.sequences
            self._wanted[row:end] = 0
            if span.wanted:
                self._wanted[end - 1] = 1
                wanted += 1
            row = end
        self.size = self.raw.n_tokens = row
        return wanted


def _pointer(array: npt.NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def _load(path: Path, gpu_layers: int) -> Any:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = gpu_layers
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise WeightsError(f"{path} is not a model that llama.cpp can load: pull it again")
    return model
