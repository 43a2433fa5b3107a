"""Speed and next-token probabilities of one GGUF file, and its conversion."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.isolated import MeasureError
from workers.measure_prompts import PROMPTS

LogProbs = NDArray[np.float32]

PREFILL_TOKENS = 256
DECODE_STEPS = 32
DECODE_SEQUENCES = 8  # the engine decodes in batches; a lone sequence is not what it serves
REPEATS = 5  # the fastest counts: a busy machine only ever adds time
ENOUGH_S = 8.0  # seconds after which a slow model is not timed once more
CONTEXT_TOKENS = 1024


@dataclass(frozen=True)
class Measurement:
    """How fast a file runs here (tokens/s, CPU only) and what it predicts.

    ``log_probs`` has a row for each built-in prompt: the natural logarithm of the probability
    of every next token. ``format`` is llama.cpp's own name of the file's format. ``share`` is
    the least share of its threads' time that the work got: below 1, others were using the cores.
    """

    prefill: float
    decode: float
    log_probs: LogProbs
    parameters: int
    format: str
    share: float = 1.0


def format_names() -> dict[str, int]:
    """Every format llama.cpp can convert to, with its number."""
    import llama_cpp

    prefixes = ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_")
    return {
        name.removeprefix(prefix): value
        for name, value in vars(llama_cpp).items()
        for prefix in prefixes
        if name.startswith(prefix)
    }


def quantize(source: Path, target: Path, format_name: str, threads: int) -> None:
    """Writes ``source`` in another format to ``target``.

    Raises:
        MeasureError: the format is unknown, or llama.cpp refused.
    """
    llama_cpp = _silent()
    number = format_names().get(format_name)
    if number is None:
        raise MeasureError(f"format {format_name!r} is unknown to llama.cpp")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = number
    params.nthread = threads
    params.allow_requantize = True
    status = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    if status != 0:
        raise _failed(f"llama.cpp could not convert {source.name} to {format_name}")


def measure(path: Path, threads: int) -> Measurement:
    """Speed and predictions of a file on this machine's CPU.

    Raises:
        MeasureError: llama.cpp cannot load or run it.
    """
    llama_cpp = _silent()
    with _loaded(llama_cpp, path, threads) as (model, context):
        runner = _Runner(llama_cpp, model, context)
        names = {value: name for name, value in format_names().items()}
        log_probs = runner.log_probs(PROMPTS)
        prefill_s, prefill_cpu_s = runner.prefill()
        decode_s, decode_cpu_s = runner.decode()
        return Measurement(
            log_probs=log_probs,
            prefill=PREFILL_TOKENS / prefill_s,
            decode=DECODE_STEPS * DECODE_SEQUENCES / decode_s,
            share=min(1.0, prefill_cpu_s / prefill_s / threads, decode_cpu_s / decode_s / threads),
            parameters=llama_cpp.llama_model_n_params(model),
            format=names.get(llama_cpp.llama_model_ftype(model) & 1023, "unknown"),
        )


def supports_gpu() -> bool:
    """Whether this build of llama.cpp places layers on a GPU."""
    return bool(_silent().llama_supports_gpu_offload())


_keep: list[Any] = []  # llama.cpp holds a bare pointer to the callback
_said: list[str] = []  # its errors, which it prints and does not return
ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR
FIRST_ERRORS = 20


def _note(level: int, text: bytes, data: object) -> None:
    if level == ERROR_LEVEL and len(_said) < FIRST_ERRORS:
        _said.append(text.decode(errors="replace").strip())


def _silent() -> Any:
    """The bindings, untyped because their types differ between releases, with logging off."""
    import llama_cpp

    callback = llama_cpp.llama_log_callback(_note)
    _keep.append(callback)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def _failed(what: str) -> MeasureError:
    """An error with llama.cpp's own first word on it."""
    return MeasureError(f"{what} ({_said[0]})" if _said else what)


@contextmanager
def _loaded(llama_cpp: Any, path: Path, threads: int) -> Iterator[tuple[Any, Any]]:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise _failed(f"llama.cpp cannot load {path.name}")
    try:
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = CONTEXT_TOKENS
        settings.n_batch = settings.n_ubatch = PREFILL_TOKENS * 2
        settings.n_seq_max = DECODE_SEQUENCES
        settings.kv_unified = True
        settings.n_threads = settings.n_threads_batch = threads
        context = llama_cpp.llama_init_from_model(model, settings)
        if not context:
            raise _failed(f"llama.cpp cannot make a context for {path.name}")
        try:
            yield model, context
        finally:
            llama_cpp.llama_free(context)
    finally:
        llama_cpp.llama_model_free(model)


@dataclass(frozen=True)
class _Row:
    token: int
    position: int
    sequence: int = 0
    output: bool = False


class _Runner:
    """Forward passes over one context, each from an empty memory."""

    def __init__(self, llama_cpp: Any, model: Any, context: Any) -> None:
        self._lib = llama_cpp
        self._context = context
        self._memory = llama_cpp.llama_get_memory(context)
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(self._vocab)

    def log_probs(self, prompts: tuple[str, ...]) -> LogProbs:
        """Log-probabilities of the token after each prompt."""
        rows = []
        for prompt in prompts:
            tokens = self._tokens(prompt)
            self._clear()
            self._decode([_Row(t, i, output=i == len(tokens) - 1) for i, t in enumerate(tokens)])
            pointer = self._lib.llama_get_logits_ith(self._context, -1)
            logits = np.ctypeslib.as_array(pointer, (self._vocab_size,)).astype(np.float64)
            logits -= logits.max()
            rows.append((logits - np.log(np.exp(logits).sum())).astype(np.float32))
        return np.stack(rows)

    def prefill(self) -> tuple[float, float]:
        """Seconds, and CPU seconds, of a prompt of ``PREFILL_TOKENS``."""
        tokens = self._tokens(" ".join(PROMPTS))
        tokens = (tokens * (1 + PREFILL_TOKENS // len(tokens)))[:PREFILL_TOKENS]
        rows = [_Row(t, i, output=i == len(tokens) - 1) for i, t in enumerate(tokens)]

        def once() -> None:
            self._clear()
            self._decode(rows)

        return self._best(once)

    def decode(self) -> tuple[float, float]:
        """Seconds, and CPU seconds, of ``DECODE_STEPS`` passes with a token of each sequence."""
        tokens = self._tokens(PROMPTS[0])

        def once() -> None:
            for step in range(DECODE_STEPS):
                token = tokens[step % len(tokens)]
                self._decode([_Row(token, step, s, output=True) for s in range(DECODE_SEQUENCES)])
            self._clear()

        self._clear()
        return self._best(once)

    def _best(self, once: Callable[[], None]) -> tuple[float, float]:
        once()  # warms caches, and repacks weights where the format needs it
        times: list[tuple[float, float]] = []
        while len(times) < REPEATS and (len(times) < 2 or sum(t for t, _ in times) < ENOUGH_S):
            start, cpu = time.perf_counter(), time.process_time()
            once()
            times.append((time.perf_counter() - start, time.process_time() - cpu))
        return min(times)

    def _tokens(self, text: str) -> list[int]:
        raw = text.encode()
        room = len(raw) + 8
        found = (self._lib.llama_token * room)()
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), found, room, True, False)
        if count <= 0:
            raise MeasureError(f"llama.cpp cannot tokenize {text[:40]!r}")
        return list(found[:count])

    def _clear(self) -> None:
        self._lib.llama_memory_clear(self._memory, False)

    def _decode(self, rows: list[_Row]) -> None:
        batch = self._lib.llama_batch_init(len(rows), 0, 1)
        try:
            batch.n_tokens = len(rows)
            for i, row in enumerate(rows):
                batch.token[i], batch.pos[i] = row.token, row.position
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, row.sequence
                batch.logits[i] = row.output
            status = self._lib.llama_decode(self._context, batch)
        finally:
            self._lib.llama_batch_free(batch)
        if status != 0:
            raise _failed(f"llama.cpp could not run a forward pass, status {status}")
