"""Local models in process, on the engine: all requests of a message at once, and all messages."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import llama_cpp

from config.errors import BackendError, Cancelled
from config.settings import Settings
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.llama_answers import completions
from workers.backends.llama_prompt import Prompt, Prompts
from workers.backends.llama_sharing import Key, OpenQuestions, Question
from workers.engine.adapters import Adapters
from workers.engine.context import LlamaContext, Shape
from workers.engine.engine import Engine
from workers.engine.grammar import grammar
from workers.engine.jobs import ChoiceJob, Job, Result, TextJob
from workers.engine.labels import build_trie
from workers.engine.limits import check_model
from workers.gpus import physical_cores, threads_asked
from workers.models import adapter_paths, weights_path
from workers.needs import PREFIX_CELLS
from workers.turns import OWN_CORES, CpuTurns

SEQUENCES = 256


_News = queue.SimpleQueue[tuple[Key, Future[Result] | Request]]
"""What became of a question, or who asks it no longer."""


@dataclass
class _Asked:
    """What one message asks; ``begun`` are the jobs of questions that nobody asked before."""

    questions: dict[Key, Question] = field(default_factory=dict)
    groups: dict[Key, list[Request]] = field(default_factory=dict)
    begun: dict[Key, Job] = field(default_factory=dict)


class LlamaBackend:
    """Answers with one model. Requests that ask the same of it at once are computed once, also
    those of several messages: each waits for one job, which goes when nobody waits any more."""

    capabilities = Capabilities(
        local=True, probabilities=True, batching=True, streaming=True, adapters=True
    )

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._limit = limit
        self._prompts = Prompts(engine.vocabulary)
        self._open = OpenQuestions()

    def figures(self) -> dict[str, float]:
        """What the engine did and where it stands; see :meth:`Engine.figures`."""
        return self._engine.figures()

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """All requests at once; completions as they come."""
        asked = _Asked()
        try:
            refused = self._ask(requests, asked)
            yield from refused
            done: _News = queue.SimpleQueue()
            for key, question in asked.questions.items():
                question.job.future.add_done_callback(
                    lambda future, key=key: done.put((key, future))  # type: ignore[misc]
                )
                for request in asked.groups[key]:
                    if request.cancellation is not None:
                        request.cancellation.on_set(
                            lambda key=key, request=request: done.put((key, request))  # type: ignore[misc]
                        )
            waiting = set(asked.questions)
            while waiting:
                key, news = done.get()
                if key not in waiting:
                    continue
                if isinstance(news, Request):
                    yield from self._give_up(news, key, asked)
                else:
                    yield from completions(asked.groups[key], news, joined=key not in asked.begun)
                    asked.groups[key].clear()
                if not asked.groups[key]:
                    waiting.discard(key)
        finally:
            for question in asked.questions.values():
                self._open.leave(question)

    def _give_up(self, request: Request, key: Key, asked: _Asked) -> Iterator[Completion]:
        """Wait no longer for what was cancelled; its question goes if nobody else asks it."""
        asked.groups[key].remove(request)
        if not asked.groups[key]:
            self._open.leave(asked.questions.pop(key))
        yield Completion(id=request.id, error=Cancelled())

    def _ask(self, requests: Sequence[Request], asked: _Asked) -> list[Completion]:
        """Join what is asked already and hand the rest to the engine; failures of single ones."""
        refused: list[Completion] = []
        try:
            for request in sorted(requests, key=lambda r: (r.adapter, r.kind, r.system)):
                try:
                    self._ask_one(request, asked)
                except BackendError as error:
                    refused.append(Completion(id=request.id, error=error))
            self._engine.submit(asked.begun.values())
        except BaseException as error:
            for job in asked.begun.values():  # others may have joined
                job.settle(error)
            raise
        return refused

    def _ask_one(self, request: Request, asked: _Asked) -> None:
        prompt = self._prompt(request)
        key = _key(request, prompt)
        if key not in asked.questions:
            question, new = self._open.ask(
                key, request.deadline, lambda: self._job(request, prompt)
            )
            asked.questions[key] = question
            if new:
                asked.begun[key] = question.job
        else:
            self._open.prolong(asked.questions[key], request.deadline)
        asked.groups.setdefault(key, []).append(request)
        job = asked.questions[key].job
        if request.on_text is not None and isinstance(job, TextJob):
            job.tell(request.on_text)

    def most_micros(self, request: Request) -> int:
        """Nothing: the machine is one's own."""
        return 0

    def close(self) -> None:
        """Free the model."""
        self._engine.close()

    def _prompt(self, request: Request) -> Prompt:
        self._engine.check_adapter(request.adapter)
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
            return ChoiceJob(prompt.tokens, prompt.shared, request.adapter, trie=trie)
        schema = None
        if isinstance(request.output, JsonOutput):
            schema = json.dumps(request.output.json_schema)  # in the asker's order of properties
            grammar(schema)  # made and tried here, not in the engine's thread, which finds it
        return TextJob(
            prompt.tokens,
            prompt.shared,
            request.adapter,
            vocabulary=self._engine.vocabulary,
            sampling=request.sampling,
            seed=request.seed,
            schema=schema,
        )


def _key(request: Request, prompt: Prompt) -> Key:
    """What two requests must have in common to be one: a choice is not drawn, so its seed and
    sampling do not matter. Who wants a sample of one's own shares with nobody."""
    if request.own_sample:
        return (object(),)
    if isinstance(request.output, ChoiceOutput):
        return (prompt.tokens, request.adapter, request.output.labels)
    drawn = request.sampling.temperature > 0
    asked = request.output.model_dump_json()
    seed = request.seed if drawn else None
    return (prompt.tokens, request.adapter, asked, request.sampling, seed)


def open_llama(settings: Settings, lane_name: str) -> LlamaBackend:
    """The model of a lane, loaded, with the adapters that are to be there from the start.

    Raises:
        ConfigurationError: the model cannot be served so; see :func:`check_model`.
        WeightsError: weights of the model or of an adapter are missing or damaged.
    """
    catalog = settings.catalog
    lane, model = catalog.lanes[lane_name], catalog.lane_model(lane_name)
    shape = Shape(
        cells=model.context + PREFIX_CELLS,
        batch=model.batch,
        micro_batch=model.batch,
        sequences=SEQUENCES,
        threads=threads_asked() or lane.threads or physical_cores(),
        gpu_layers=model.gpu_layers,
    )
    path = weights_path(settings, lane.model)
    files = adapter_paths(settings, lane.model)
    check_model(path, lane.model, model.context)
    on_gpu = model.gpu_layers != 0 and llama_cpp.llama_supports_gpu_offload()
    alone = os.environ.get(OWN_CORES) == "1"
    turns = None if on_gpu or alone else CpuTurns(settings.models_dir)
    context = LlamaContext(path, shape, turns)
    adapters = Adapters(context, files, model.max_adapters)
    adapters.preload(model.preload)
    engine = Engine(context, adapters, end_process, reproducible=model.reproducible)
    return LlamaBackend(engine, model.context)


def end_process() -> None:
    """End this worker, so that its supervisor starts it anew: an engine does not come back.

    What it holds is recorded as failed first; a worker that hangs over that is killed.
    """
    os.kill(os.getpid(), signal.SIGTERM)
    hard = threading.Timer(30, os.kill, (os.getpid(), signal.SIGKILL))
    hard.daemon = True
    hard.start()
