"""A model for tests and dry runs: it answers, delays and fails as its script says."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from pydantic import Field

from config.catalog import Model, OutputType, Strict
from config.errors import BackendError, Cancelled
from config.load import validated
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.base import Capabilities, Completion, Request
from workers.backends.bounds import most_cost


class Line(Strict):
    """What happens to requests that match; the first matching line is played.

    ``times`` bounds how often a line is played for one prompt. ``p`` is the probability that the
    chosen label gets; the others share the rest. ``word_s`` is what each word of a text takes.
    ``kill`` ends the worker process at once.
    """

    kind: str | None = None
    contains: str = ""
    times: int | None = Field(default=None, ge=1)
    answer: str | None = None
    p: float = Field(default=0.95, gt=0, le=1)
    fail: str | None = None
    retryable: bool = True
    delay_s: float = Field(default=0, ge=0)
    word_s: float = Field(default=0, ge=0)
    kill: bool = False


class Script(Strict):
    """Lines in order, and what to do where none matches."""

    lines: tuple[Line, ...] = ()
    delay_s: float = Field(default=0, ge=0)
    p: float = Field(default=0.95, gt=0, le=1)


class ScriptedBackend:
    """Plays a model's ``script``."""

    capabilities = Capabilities(local=True, probabilities=True, streaming=True)

    def __init__(self, name: str, model: Model) -> None:
        self._script = validated(Script, model.script or {}, f"models.{name}.script")
        self._model = model
        self._played: Counter[tuple[int, str]] = Counter()

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Each request in order."""
        for request in requests:
            yield self._play(request)

    def most_micros(self, request: Request) -> int:
        """By the model's price, as a provider's call would be reckoned, in micro-dollars."""
        texts = [request.system, request.prompt]
        if isinstance(request.output, JsonOutput):
            texts.append(json.dumps(request.output.json_schema))
        return most_cost(self._model.price, tuple(texts), request.sampling.max_tokens)

    def close(self) -> None:
        """Nothing is held."""

    def _play(self, request: Request) -> Completion:
        line = self._line(request)
        delay = line.delay_s or self._script.delay_s
        if self._is_given_up(request, delay):
            return Completion(id=request.id, error=Cancelled())
        if line.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if line.fail is not None:
            error = BackendError(line.fail, retryable=line.retryable)
            return Completion(id=request.id, error=error, inference_s=delay)
        said = self._say(request, line, delay)
        if request.output.type is OutputType.TEXT and not self._speak(request, line, said.raw):
            return Completion(id=request.id, error=Cancelled())
        return said

    def _speak(self, request: Request, line: Line, raw: str) -> bool:
        """Tell a text word by word; whether it was wanted to its end."""
        for word in re.findall(r"\s*\S+|\s+$", raw):
            if self._is_given_up(request, line.word_s):
                return False
            if request.on_text is not None:
                request.on_text(word)
        return True

    def _is_given_up(self, request: Request, seconds: float) -> bool:
        """Take so long, unless the answer is no longer wanted; what is paid for goes on."""
        token = request.cancellation
        if token is None or self._model.price.input or self._model.price.output:
            if seconds:
                time.sleep(seconds)
            return False
        return token.wait(seconds) if seconds else token.is_set()

    def _line(self, request: Request) -> Line:
        for index, line in enumerate(self._script.lines):
            if line.kind not in (None, request.kind) or line.contains not in request.prompt:
                continue
            played = (index, request.prompt)
            if line.times is not None and self._played[played] >= line.times:
                continue
            if line.times is not None:
                self._played[played] += 1
            return line
        return Line(p=self._script.p)

    def _say(self, request: Request, line: Line, delay: float) -> Completion:
        output = request.output
        tokens_in = (len(request.system) + len(request.prompt)) // 4 + 1
        probabilities = None
        if isinstance(output, ChoiceOutput):
            raw = line.answer or output.labels[request.seed % len(output.labels)]
            rest = (1 - line.p) / (len(output.labels) - 1)
            if raw in output.labels:
                probabilities = tuple(line.p if x == raw else rest for x in output.labels)
        elif isinstance(output, JsonOutput):
            raw = line.answer or json.dumps(sample(output.json_schema))
        else:
            raw = line.answer or f"Noted, and done as asked ({request.seed})."
        tokens_out = min(len(raw) // 4 + 1, request.sampling.max_tokens)
        return Completion(
            id=request.id,
            raw=raw,
            label=raw if output.type is OutputType.CHOICE else None,
            probabilities=probabilities,
            mass=1.0 if probabilities else None,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            inference_s=delay,
            cost_micros=self._model.price.micros(tokens_in, tokens_out),
        )


def sample(schema: dict[str, object]) -> object:
    """A small value that holds to a JSON schema of the usual keywords."""
    enum = schema.get("enum")
    if isinstance(enum, list):
        return enum[0]
    kind = schema.get("type")
    properties = schema.get("properties")
    if kind == "object" and isinstance(properties, dict):
        return {name: sample(part) for name, part in properties.items()}
    items = schema.get("items")
    if kind == "array":
        return [sample(items)] if isinstance(items, dict) else []
    simple = {"string": "as agreed", "number": 1.0, "integer": 1, "boolean": True}
    return simple.get(str(kind))
