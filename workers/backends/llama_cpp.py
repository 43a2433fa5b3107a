"""Local models in process, on the engine: all requests of a message at once, and all messages."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import llama_cpp

from config.errors import BackendError
from config.settings import Settings
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.llama_prompt import Prompt, Prompts
from workers.engine.context import LlamaContext, Shape
from workers.engine.engine import Engine
from workers.engine.jobs import ChoiceJob, Job, Result, TextJob, Written
from workers.engine.labels import LabelScores, build_trie
from workers.gpus import physical_cores
from workers.models import weights_path
from workers.turns import CpuTurns

SEQUENCES = 256
PREFIX_CELLS = 4096
"""Room beside the context proper, for the constant parts of many templates and for batches."""

Key = tuple[object, ...]


class LlamaBackend:
    """Answers with one model. Requests that ask the same of it are computed once."""

    capabilities = Capabilities(local=True, probabilities=True, batching=True)

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._limit = limit
        self._prompts = Prompts(engine.vocabulary)

    @property
    def engine(self) -> Engine:
        """The engine, for its figures."""
        return self._engine

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """All requests at once; completions as they come."""
        done: queue.SimpleQueue[tuple[Key, Future[Result]]] = queue.SimpleQueue()
        groups: dict[Key, list[Request]] = {}
        jobs: dict[Key, Job] = {}
        for request in sorted(requests, key=lambda r: (r.kind, r.system)):
            try:
                prompt = self._prompt(request)
                key = _key(request, prompt)
                if key not in groups:
                    jobs[key] = self._job(request, prompt)
            except BackendError as error:
                yield Completion(id=request.id, error=error)
                continue
            groups.setdefault(key, []).append(request)
        for key, job in jobs.items():
            job.future.add_done_callback(lambda f, key=key: done.put((key, f)))  # type: ignore[misc]
        try:
            self._engine.submit(jobs.values())
            for _ in jobs:
                key, future = done.get()
                yield from _completions(groups[key], future)
        finally:
            for job in jobs.values():
                job.future.cancel()  # whoever stopped listening wants no more of it

    def most_micros(self, request: Request) -> int:
        """Nothing: the machine is one's own."""
        return 0

    def close(self) -> None:
        """Free the model."""
        self._engine.close()

    def _prompt(self, request: Request) -> Prompt:
        prompt = self._prompts.prompt(request)
        wants = 8 if isinstance(request.output, ChoiceOutput) else request.sampling.max_tokens
        if len(prompt.tokens) + wants > self._limit:
            raise BackendError(
                f"prompt of {len(prompt.tokens)} tokens and an answer of {wants} exceed the "
                f"context of {self._limit}: shorten the prompt",
                retryable=False,
            )
        return prompt

    def _job(self, request: Request, prompt: Prompt) -> Job:
        if isinstance(request.output, ChoiceOutput):
            labels = self._prompts.labels(request.output)
            trie = build_trie(labels, self._engine.vocabulary.end_of_turn)
            return ChoiceJob(prompt.tokens, prompt.shared, trie=trie)
        schema = None
        if isinstance(request.output, JsonOutput):
            schema = json.dumps(request.output.json_schema, sort_keys=True)
        return TextJob(
            prompt.tokens,
            prompt.shared,
            vocabulary=self._engine.vocabulary,
            sampling=request.sampling,
            seed=request.seed,
            schema=schema,
        )


def _key(request: Request, prompt: Prompt) -> Key:
    """What two requests must have in common to be one: a choice is not drawn, so its seed and
    sampling do not matter."""
    if isinstance(request.output, ChoiceOutput):
        return (prompt.tokens, request.output.labels)
    drawn = request.sampling.temperature > 0
    asked = request.output.model_dump_json()
    return (prompt.tokens, asked, request.sampling, request.seed if drawn else None)


def _completions(requests: Sequence[Request], future: Future[Result]) -> Iterator[Completion]:
    """The same result for each who asked; only the first one's tokens were computed."""
    error = future.exception()
    for place, request in enumerate(requests):
        if error is not None:
            fault = error if isinstance(error, BackendError) else BackendError(str(error))
            yield Completion(id=request.id, error=fault)
        else:
            yield _completion(request, future.result(), shared=place > 0)


def _completion(request: Request, result: Result, *, shared: bool) -> Completion:
    answer = result.answer
    cached = result.tokens_in if shared else result.tokens_cached
    if isinstance(answer, Written):
        return Completion(
            id=request.id,
            raw=answer.text,
            tokens_in=result.tokens_in,
            tokens_out=answer.tokens,
            tokens_cached=cached,
            inference_s=result.seconds,
            truncated=answer.truncated,
        )
    assert isinstance(request.output, ChoiceOutput)
    return _choice(request, request.output.labels, answer, result, cached)


def _choice(
    request: Request, labels: Sequence[str], scores: LabelScores, result: Result, cached: int
) -> Completion:
    best = max(range(len(labels)), key=lambda i: scores.probabilities[i])
    return Completion(
        id=request.id,
        raw=labels[best],
        label=labels[best],
        probabilities=scores.probabilities,
        mass=scores.mass,
        tokens_in=result.tokens_in,
        tokens_out=1,
        tokens_cached=cached,
        inference_s=result.seconds,
    )


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
        micro_batch=model.batch,
        sequences=SEQUENCES,
        threads=int(os.environ.get("UPTIER_THREADS", 0)) or lane.threads or physical_cores(),
        gpu_layers=model.gpu_layers,
    )
    path = weights_path(settings, lane.model)
    on_gpu = model.gpu_layers != 0 and llama_cpp.llama_supports_gpu_offload()
    turns = None if on_gpu else CpuTurns(settings.models_dir)
    context = LlamaContext(path, shape, turns)
    engine = Engine(context, on_death=end_process, reproducible=model.reproducible)
    return LlamaBackend(engine, model.context)


def end_process() -> None:
    """End this worker, so that its supervisor starts it anew: an engine does not come back.

    What it holds is recorded as failed first; a worker that hangs over that is killed.
    """
    os.kill(os.getpid(), signal.SIGTERM)
    hard = threading.Timer(30, os.kill, (os.getpid(), signal.SIGKILL))
    hard.daemon = True
    hard.start()
