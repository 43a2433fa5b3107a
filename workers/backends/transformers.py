"""Hugging Face models in process, for what llama.cpp does not load. Needs the extra of that name.

A choice is scored as llama.cpp's are: the labels' own tokens, to the last one. There is no
grammar: JSON is whatever the model writes, and the quality check turns away what does not hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import Any

from config.catalog import Model
from config.errors import BackendError, Cancelled, ConfigurationError
from config.settings import Settings
from routing.decision import ChoiceOutput, TextOutput
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.http_errors import first_line
from workers.backends.http_logprobs import Scores
from workers.backends.http_questions import CHOICE_TOKENS, cut, stops
from workers.backends.transformers_choice import Question, score
from workers.backends.transformers_prompts import Prompts
from workers.gpus import threads_asked
from workers.models import weights_path
from workers.pieces import Pieces

BATCH = 16
"""Choices that are scored together; each takes a row for every label of several tokens."""

HALF = "\ufffd"
"""What a tokenizer gives for the beginning of a character."""

CHANCE = threading.Lock()
"""Held while torch draws from the source of chance that the whole process shares."""


class TransformersBackend:
    """One causal language model and its tokenizer, on the GPU if there is one."""

    capabilities = Capabilities(local=True, probabilities=True, batching=True, streaming=True)

    def __init__(self, torch: Any, model: Any, tokenizer: Any, limit: int) -> None:
        self._torch = torch
        self._model = model
        self._tokenizer = tokenizer
        self._prompts = Prompts(tokenizer)
        self._limit = limit

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Choices in batches, everything else one after another."""
        choices = iter([r for r in requests if isinstance(r.output, ChoiceOutput)])
        while batch := list(islice(choices, BATCH)):
            yield from self._choose(batch)
        for request in requests:
            if not isinstance(request.output, ChoiceOutput):
                yield self._write(request)

    def most_micros(self, request: Request) -> int:
        """Nothing: the machine is one's own."""
        return 0

    def close(self) -> None:
        """Forget the model; may be called twice."""
        self._model = None
        if self._torch.cuda.is_available():
            self._torch.cuda.empty_cache()

    def _choose(self, batch: Sequence[Request]) -> Iterator[Completion]:
        start = time.monotonic()
        questions: dict[str, Question] = {}
        for request in batch:
            try:
                questions[request.id] = self._question(request)
            except BackendError as error:
                yield Completion(id=request.id, error=error)
        asked = [request for request in batch if request.id in questions]
        try:
            found = score(self._torch, self._model, list(questions.values()))
        except RuntimeError as error:  # also what torch raises where memory is short
            for request in asked:
                yield Completion(id=request.id, error=_fault(error))
            return
        seconds = (time.monotonic() - start) / max(1, len(asked))
        for request, scores in zip(asked, found, strict=True):
            yield _chosen(request, questions[request.id], scores, seconds)

    def _question(self, request: Request) -> Question:
        assert isinstance(request.output, ChoiceOutput)
        prompt = self._prompts.tokens(request)
        self._fit(len(prompt), CHOICE_TOKENS)
        return Question(prompt, self._prompts.labels(request.output.labels))

    def _fit(self, prompt: int, wants: int) -> None:
        if prompt + wants > self._limit:
            raise BackendError(
                f"prompt of {prompt} tokens and an answer of {wants} exceed the context of "
                f"{self._limit}: shorten the prompt",
                retryable=False,
            )

    def _write(self, request: Request) -> Completion:
        start = time.monotonic()
        try:
            if request.cancelled:
                raise Cancelled
            prompt = self._prompts.tokens(request)
            self._fit(len(prompt), request.sampling.max_tokens)
            pieces = Pieces(stops(request))
            if request.on_text is not None and isinstance(request.output, TextOutput):
                pieces.add(request.on_text)
            written = self._generate(request, prompt, pieces)
        except (BackendError, RuntimeError) as broken:
            error = broken if isinstance(broken, BackendError) else _fault(broken)
            return Completion(id=request.id, error=error, inference_s=time.monotonic() - start)
        ended = bool(written) and written[-1] in self._prompts.ends
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        whole = cut(text, stops(request))
        pieces.end(whole)
        return Completion(
            id=request.id,
            raw=whole,
            tokens_in=len(prompt),
            tokens_out=len(written),
            inference_s=time.monotonic() - start,
            truncated=not ended
            and len(written) >= request.sampling.max_tokens
            and whole == text.strip(),
        )

    @contextmanager
    def _seeded(self, request: Request) -> Iterator[None]:
        """Alone with torch's one source of chance, if there is anything to draw.

        ``generate`` takes no generator of a request's own.
        """
        if request.sampling.temperature <= 0:
            yield
            return
        with CHANCE:
            self._torch.manual_seed(request.seed)
            yield

    def _generate(self, request: Request, prompt: Sequence[int], pieces: Pieces) -> list[int]:
        sampling = request.sampling
        drawing: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            drawing = {"do_sample": True, "temperature": sampling.temperature}
            drawing |= {"top_p": sampling.top_p, "top_k": 0}
        ids = self._torch.tensor([prompt], device=self._model.device)
        ends = stops(request)

        def stopped(so_far: Any, scores: Any, **_: Any) -> Any:
            text = self._tokenizer.decode(so_far[0, len(prompt) :], skip_special_tokens=True)
            pieces.look(text.rstrip(HALF))
            done = request.cancelled or (bool(ends) and cut(text, ends) != text.strip())
            return self._torch.tensor([done], device=so_far.device)

        with self._seeded(request), self._torch.inference_mode():
            said = self._model.generate(
                ids,
                attention_mask=self._torch.ones_like(ids),
                max_new_tokens=sampling.max_tokens,
                pad_token_id=self._prompts.pad,
                stopping_criteria=[stopped],
                **drawing,
            )
        if request.cancelled:
            raise Cancelled
        return [int(token) for token in said[0, len(prompt) :]]


def open_transformers(settings: Settings, lane_name: str) -> TransformersBackend:
    """The model of a lane, loaded: its weights (GGUF), else ``remote_name``, a folder or a repo.

    Raises:
        ConfigurationError: the extra is not installed, or the model cannot be loaded.
        WeightsError: the weights are missing or damaged.
    """
    lane = settings.catalog.lanes[lane_name]
    model = settings.catalog.models[lane.model]
    torch, transformers = (_extra(name, lane.model) for name in ("torch", "transformers"))
    if threads := threads_asked() or lane.threads:
        torch.set_num_threads(threads)
    place, options = _place(settings, lane.model, model)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(place, dtype="auto", **options)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigurationError(
            f"models.{lane.model} cannot be loaded from {place!r}: {first_line(error)}; correct "
            "its weights or remote_name"
        ) from None
    on_gpu = model.gpu_layers != 0 and torch.cuda.is_available()
    loaded = loaded.to("cuda" if on_gpu else "cpu").eval()
    return TransformersBackend(torch, loaded, tokenizer, model.context)


def _extra(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"models.{name} has backend 'transformers', which needs {module}: run "
            "`pip install 'uptier[transformers]'`"
        ) from None


def _place(settings: Settings, name: str, model: Model) -> tuple[str, dict[str, Any]]:
    if model.weights is None:
        return model.remote_name or name, {}
    path = weights_path(settings, name)
    return str(path.parent), {"gguf_file": path.name}


def _chosen(request: Request, question: Question, scores: Scores, seconds: float) -> Completion:
    assert isinstance(request.output, ChoiceOutput)
    label = request.output.labels[scores.best]
    return Completion(
        id=request.id,
        raw=label,
        label=label,
        probabilities=scores.probabilities,
        mass=scores.mass,
        tokens_in=len(question.prompt),
        tokens_out=len(question.paths[scores.best]),
        inference_s=seconds,
    )


def _fault(error: RuntimeError) -> BackendError:
    return BackendError(f"{type(error).__name__}: {first_line(error)}")
