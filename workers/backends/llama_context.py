"""A llama.cpp context on the library's low-level bindings: tokens in, logits out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from config.errors import BackendError, WeightsError
from workers.turns import CpuTurns

Logits = npt.NDArray[np.float32]

NO_ROOM = 1


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """llama.cpp writes pages to standard error while it loads."""


def silence() -> None:
    """Keep llama.cpp's log off standard error."""
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))


@dataclass(frozen=True)
class Row:
    """One token of a batch: its position, the sequences it belongs to, and whether its logits
    are wanted."""

    token: int
    position: int
    sequences: tuple[int, ...]
    wanted: bool = False


@dataclass(frozen=True)
class Shape:
    """How large a context is. ``cells`` is the room for tokens of all sequences together."""

    cells: int
    batch: int = 512
    sequences: int = 64
    threads: int = 1
    gpu_layers: int = 0


@dataclass
class _Handles:
    model: object
    context: object
    memory: object
    vocab: object
    batch: llama_cpp.llama_batch
    size: int = field(default=0)


class LlamaContext:
    """One model and one context. Not thread-safe: one owner.

    With ``turns`` each forward pass waits for the CPU cores to be free of other lanes' passes.
    """

    def __init__(self, path: Path, shape: Shape, turns: CpuTurns | None = None) -> None:
        silence()
        llama_cpp.llama_backend_init()
        model = _load(path, shape.gpu_layers)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = shape.cells
        params.n_batch = params.n_ubatch = shape.batch
        params.n_seq_max = shape.sequences
        params.n_threads = params.n_threads_batch = shape.threads
        params.kv_unified = True
        params.swa_full = True
        params.no_perf = True
        # Must cover the wanted rows of one decode, or the process aborts.
        params.n_outputs_max = shape.batch
        context = llama_cpp.llama_init_from_model(model, params)
        if not context:
            raise WeightsError(f"{path}: no context of {shape.cells} tokens fits into memory")
        vocab = llama_cpp.llama_model_get_vocab(model)
        batch = llama_cpp.llama_batch_init(shape.batch, 0, shape.sequences)
        memory = llama_cpp.llama_get_memory(context)
        self.shape = shape
        self._turns = turns
        self._h = _Handles(model, context, memory, vocab, batch)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(vocab)

    def tokens(self, text: str, *, special: bool = False, start: bool = False) -> list[int]:
        """Token ids of ``text``. Markup is read as such only if ``special``; ``start`` adds what
        the model wants at the start of a text."""
        data = text.encode()
        room = len(data) + 8
        buffer = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self._h.vocab, data, len(data), buffer, room, start, special
        )
        if count < 0:
            raise BackendError(f"text of {len(data)} bytes cannot be tokenized", retryable=False)
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; none for markup."""
        buffer = ctypes.create_string_buffer(64)
        count = llama_cpp.llama_token_to_piece(self._h.vocab, token, buffer, 64, 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = llama_cpp.llama_token_to_piece(self._h.vocab, token, buffer, -count, 0, False)
        return buffer.raw[:count]

    def ends(self, token: int) -> bool:
        """Whether the token ends the model's turn."""
        return bool(llama_cpp.llama_vocab_is_eog(self._h.vocab, token))

    @property
    def end_of_turn(self) -> int:
        """The token with which the model ends its turn."""
        token: int = llama_cpp.llama_vocab_eot(self._h.vocab)
        return token if token >= 0 else int(llama_cpp.llama_vocab_eos(self._h.vocab))

    @property
    def handles(self) -> _Handles:
        """The library's own handles, for samplers."""
        return self._h

    def chat(self, messages: Sequence[tuple[str, str]]) -> str | None:
        """The messages (role, text) in the model's own chat markup, up to the assistant's turn;
        ``None`` if the model has none."""
        template = llama_cpp.llama_model_chat_template(self._h.model, None)
        if not template:
            return None
        chat = (llama_cpp.llama_chat_message * len(messages))()
        for slot, (role, text) in zip(chat, messages, strict=True):
            slot.role, slot.content = role.encode(), text.encode()
        room = 4096 + 2 * sum(len(text.encode()) for _, text in messages)
        buffer = ctypes.create_string_buffer(room)
        count = llama_cpp.llama_chat_apply_template(
            template, chat, len(messages), True, buffer, room
        )
        return buffer.raw[:count].decode() if 0 < count <= room else None

    def forget(self, sequence: int) -> None:
        """Drop all tokens of a sequence."""
        llama_cpp.llama_memory_seq_rm(self._h.memory, sequence, -1, -1)

    def share(self, source: int, target: int) -> None:
        """Let ``target`` see all tokens of ``source``; nothing is copied."""
        llama_cpp.llama_memory_seq_cp(self._h.memory, source, target, -1, -1)

    def clear(self) -> None:
        """Drop everything."""
        llama_cpp.llama_memory_clear(self._h.memory, True)

    def decode(self, rows: Sequence[Row]) -> list[Logits]:
        """Run rows through the model; one array of ``vocab_size`` logits for each wanted row.

        Raises:
            BackendError: no room for the rows, or the library failed.
        """
        found: list[Logits] = []
        for start in range(0, len(rows), self.shape.batch):
            part = rows[start : start + self.shape.batch]
            self._run(part)
            found += [self._logits(index) for index, row in enumerate(part) if row.wanted]
        return found

    def close(self) -> None:
        """Free the context and the model."""
        llama_cpp.llama_batch_free(self._h.batch)
        llama_cpp.llama_free(self._h.context)
        llama_cpp.llama_model_free(self._h.model)
        if self._turns is not None:
            self._turns.close()

    def _run(self, rows: Sequence[Row]) -> None:
        batch = self._h.batch
        batch.n_tokens = len(rows)
        for index, row in enumerate(rows):
            batch.token[index] = row.token
            batch.pos[index] = row.position
            batch.n_seq_id[index] = len(row.sequences)
            for place, sequence in enumerate(row.sequences):
                batch.seq_id[index][place] = sequence
            batch.logits[index] = row.wanted
        with self._turns.turn() if self._turns is not None else nullcontext():
            code = llama_cpp.llama_decode(self._h.context, batch)
        if code == NO_ROOM:
            raise NoRoom(f"no room for {len(rows)} more tokens in {self.shape.cells} cells")
        if code != 0:
            raise BackendError(f"llama_decode failed with code {code}")

    def _logits(self, index: int) -> Logits:
        pointer = llama_cpp.llama_get_logits_ith(self._h.context, index)
        view = np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))
        return view.copy()


class NoRoom(BackendError):
    """The context's cells are all in use; nothing was changed."""


def _load(path: Path, gpu_layers: int) -> object:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = gpu_layers
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise WeightsError(f"{path} is not a model that llama.cpp can load: pull it again")
    return model
