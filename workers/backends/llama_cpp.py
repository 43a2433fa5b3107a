"""Local models in process. The constant part of prompts is computed once and shared."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import llama_cpp

from config.errors import BackendError
from config.settings import Settings
from routing.decision import ChoiceOutput
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.llama_choice import score_labels
from workers.backends.llama_context import LlamaContext, NoRoom, Row, Shape
from workers.backends.llama_text import generate
from workers.gpus import physical_cores
from workers.models import weights_path
from workers.turns import CpuTurns

WORK = 0
PREFIX_SEQUENCES = range(1, 17)
BRANCH_SEQUENCES = range(17, 64)
PREFIX_CELLS = 4096
"""Room beside the context proper, for the constant parts of many templates."""
ANSWER_LEAD = "Answer:"
MARK = "\x02"


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens: what is shared with others of its template, and what is its own."""

    shared: tuple[int, ...]
    own: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.shared) + len(self.own)


class LlamaBackend:
    """Answers one request after another; shared parts stay in memory between requests.

    A prompt is always computed in the same two pieces, shared and own, so that an answer never
    depends on what was computed before it.
    """

    capabilities = Capabilities(local=True, probabilities=True)

    def __init__(self, context: LlamaContext, limit: int) -> None:
        self._context = context
        self._limit = limit
        self._prefixes: OrderedDict[tuple[int, ...], int] = OrderedDict()
        self._markup: dict[tuple[str, bool], tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Requests of one template after another, each on its own."""
        for request in sorted(requests, key=lambda r: (r.kind, r.system)):
            start = time.monotonic()
            try:
                yield self._answer(request, start)
            except BackendError as error:
                self._reset_if_full(error)
                yield Completion(id=request.id, error=error, inference_s=time.monotonic() - start)

    def most_micros(self, request: Request) -> int:
        """Nothing: the machine is one's own."""
        return 0

    def close(self) -> None:
        """Free the model."""
        self._context.close()

    def _answer(self, request: Request, start: float) -> Completion:
        prompt = self._prompt(request)
        wants = 8 if isinstance(request.output, ChoiceOutput) else request.sampling.max_tokens
        if len(prompt) + wants > self._limit:
            raise BackendError(
                f"prompt of {len(prompt)} tokens and an answer of {wants} exceed the context of "
                f"{self._limit}: shorten the prompt",
                retryable=False,
            )
        source = self._prefix(prompt.shared)
        try:
            if source is not None:
                self._context.share(source, WORK)
            if isinstance(request.output, ChoiceOutput):
                return self._choose(request, request.output, prompt, source, start)
            return self._write(request, prompt, start)
        finally:
            self._context.forget(WORK)

    def _choose(
        self, request: Request, output: ChoiceOutput, prompt: Prompt, source: int | None,
        start: float,
    ) -> Completion:  # fmt: skip
        scores = score_labels(
            self._context, output.labels, prompt.own, len(prompt.shared), source, WORK,
            BRANCH_SEQUENCES,
        )  # fmt: skip
        best = max(range(len(output.labels)), key=lambda i: scores.probabilities[i])
        return Completion(
            id=request.id,
            raw=output.labels[best],
            label=output.labels[best],
            probabilities=scores.probabilities,
            mass=scores.mass,
            tokens_in=len(prompt),
            tokens_out=scores.tokens[best],
            tokens_cached=len(prompt.shared),
            inference_s=time.monotonic() - start,
        )

    def _write(self, request: Request, prompt: Prompt, start: float) -> Completion:
        position = len(prompt.shared)
        rows = [
            Row(token, position + i, (WORK,), i == len(prompt.own) - 1)
            for i, token in enumerate(prompt.own)
        ]
        self._context.decode(rows)
        written = generate(self._context, request, len(prompt), WORK)
        return Completion(
            id=request.id,
            raw=written.text,
            tokens_in=len(prompt),
            tokens_out=written.tokens,
            tokens_cached=len(prompt.shared),
            inference_s=time.monotonic() - start,
            truncated=written.truncated,
        )

    def _prompt(self, request: Request) -> Prompt:
        choice = isinstance(request.output, ChoiceOutput)
        key = (request.system, choice)
        if key not in self._markup:
            self._markup[key] = self._tokenize_markup(request.system, choice)
        shared, tail = self._markup[key]
        # What the asker wrote is never read as markup.
        own = (*self._context.tokens(request.prompt), *tail)
        return Prompt(shared, own) if request.system else Prompt((), (*shared, *own))

    def _tokenize_markup(
        self, system: str, choice: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        messages = [("user", MARK * 2)]
        if system:
            messages.insert(0, ("system", MARK))
        markup = self._context.chat(messages)
        if markup is None:
            markup = f"{MARK}\n\n{MARK * 2}\n\n" if system else f"{MARK * 2}\n\n"
        before, after = markup.split(MARK * 2)
        tokens: list[int] = []
        if system:
            first, between = before.split(MARK)
            tokens = self._context.tokens(first, special=True, start=True)
            tokens += self._context.tokens(system)
            tokens += self._context.tokens(between, special=True)
        else:
            tokens = self._context.tokens(before, special=True, start=True)
        tail = self._context.tokens(after + (ANSWER_LEAD if choice else ""), special=True)
        return tuple(tokens), tuple(tail)

    def _prefix(self, tokens: tuple[int, ...]) -> int | None:
        """The sequence that holds a shared part, computed if it is not there yet."""
        if not tokens:
            return None
        if tokens in self._prefixes:
            self._prefixes.move_to_end(tokens)
            return self._prefixes[tokens]
        while self._prefixes and (
            len(self._prefixes) == len(PREFIX_SEQUENCES)
            or sum(map(len, self._prefixes)) + len(tokens) > PREFIX_CELLS
        ):
            _, oldest = self._prefixes.popitem(last=False)
            self._context.forget(oldest)
        used = set(self._prefixes.values())
        sequence = next(s for s in PREFIX_SEQUENCES if s not in used)
        self._context.decode([Row(t, i, (sequence,)) for i, t in enumerate(tokens)])
        self._prefixes[tokens] = sequence
        return sequence

    def _reset_if_full(self, error: BackendError) -> None:
        if isinstance(error, NoRoom):
            self._context.clear()
            self._prefixes.clear()


def open_llama(settings: Settings, lane_name: str) -> LlamaBackend:
    """The model of a lane, loaded.

    Raises:
        WeightsError: the weights are missing or damaged.
    """
    catalog = settings.catalog
    lane, model = catalog.lanes[lane_name], catalog.lane_model(lane_name)
    shape = Shape(
        cells=model.context + PREFIX_CELLS,
        batch=model.batch,
        sequences=BRANCH_SEQUENCES.stop,
        threads=int(os.environ.get("UPTIER_THREADS", 0)) or lane.threads or physical_cores(),
        gpu_layers=model.gpu_layers,
    )
    path = weights_path(settings, lane.model)
    on_gpu = model.gpu_layers != 0 and llama_cpp.llama_supports_gpu_offload()
    turns = None if on_gpu else CpuTurns(settings.models_dir)
    return LlamaBackend(LlamaContext(path, shape, turns), model.context)
