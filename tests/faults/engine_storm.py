"""An engine under random load: submissions, cancellations, deadlines, adapters, oversize prompts.

Its templates share parts of various lengths and new versions of them come up, with so few
sequences that some prefix always has to leave; now and then a prefix is refused, a batch finds no
room, or the context is lost. Nothing may crash, no request may stay unanswered or leave anything
behind in the context, what was asked first must still be answered the same at the end, and memory
must stay flat.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import llama_cpp
import psutil

from config.catalog import Sampling
from config.settings import load_settings
from tests.faults.engine_order import disorder
from tests.lora_file import write_lora
from workers.engine.adapters import Adapters
from workers.engine.context import (
    BadBatch,
    ContextLost,
    LlamaContext,
    Logits,
    NoRoom,
    Shape,
    Span,
)
from workers.engine.engine import Engine
from workers.engine.jobs import ChoiceJob, Job, TextJob
from workers.engine.labels import LabelScores, build_trie
from workers.models import weights_path

LABELS = ("CONTINUE", "REST", "ASK", "ASK_MANAGER", "BLOCKED")
LONG_LABELS = ("ask the manager first", "ask the manager again", "ask nobody", "go on alone")
RULES = [f"Rule {i}: be careful with item {i}." for i in range(20)]
HOUSE = " ".join(RULES)
SEQUENCES = 24
FAULTS = 0.01
"""How often the library fails a pass, as a share of all."""
POISON = "zzzz"
"""Passes with this word in a prefix are refused, whoever asks."""
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ADAPTERS = ("a", "b", "c")
NEAR = 0.15
"""Nats by which rounding may move a label's logarithm."""
OPEN = 60
"""Requests in flight at most."""


@dataclass
class Weathered:
    """What a storm was and did; ``growth`` is of resident memory, as a share, after its start."""

    jobs: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    drift: float = 0.0
    growth: float = 0.0
    idle: bool = False
    disorder: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What went wrong, in words."""
        found = []
        if sum(self.ended.values()) != self.jobs:
            found.append(f"{self.jobs - sum(self.ended.values())} requests without an end")
        if self.drift > NEAR:
            found.append(f"the first question's answer moved by {self.drift:.3f} nats")
        if self.growth > 0.05:
            found.append(f"memory grew by {100 * self.growth:.1f} %")
        if not self.idle:
            found.append("something was left behind in the context")
        return [*found, *self.disorder[:10]]


class WatchedEngine(Engine):
    """Looks before each pass, and before it waits, whether its context is in order."""

    def __init__(self, context: LlamaContext, adapters: Adapters, disorder: list[str]) -> None:
        self._disorder = disorder
        super().__init__(context, adapters)

    def _collect(self) -> bool:
        memory = self._context._memory
        self._disorder += disorder(
            self._scheduler, lambda s: int(llama_cpp.llama_memory_seq_pos_max(memory, s))
        )
        return super()._collect()


class FaultyContext(LlamaContext):
    """Refuses poisoned prefixes, and fails at random as the library might."""

    def __init__(self, path: Path, shape: Shape, seed: int) -> None:
        super().__init__(path, shape)
        self._rng = random.Random(seed)
        self.poison: frozenset[int] = frozenset()
        self.faulty = False

    def decode(self, spans: Sequence[Span]) -> Logits:
        """As the library does it, where it does it."""
        for span in spans:
            if not span.wanted and self.poison & set(span.tokens):
                raise BadBatch("a poisoned prefix", retryable=False)
        if self.faulty and self._rng.random() < FAULTS:
            raise self._rng.choice([NoRoom("full"), BadBatch("gap"), ContextLost("code -3")])
        return super().decode(spans)


def storm(
    folder: Path, seconds: float, seed: int, tell: Callable[[str], None] = lambda _line: None
) -> Weathered:
    """Load an engine with SmolLM2 and three adapters (two at a time) for ``seconds``."""
    rng, found = random.Random(seed), Weathered()
    engine, context = _engine(folder, seed, found.disorder)
    canary = _canary(engine)
    context.faulty = True
    begun = told = time.monotonic()
    settled: int | None = None
    open_jobs: list[Job] = []
    while time.monotonic() - begun < seconds:
        batch = [_job(engine, rng) for _ in range(rng.randint(1, 12))]
        engine.submit(batch)
        found.jobs += len(batch)
        open_jobs += batch
        for job in rng.sample(open_jobs, min(2, len(open_jobs))):
            job.future.cancel()
        open_jobs = _wait(open_jobs, found, OPEN)
        time.sleep(rng.random() * 0.05)
        if settled is None and time.monotonic() - begun > seconds / 6:
            settled = _resident()
        if time.monotonic() - told > 60:
            told = time.monotonic()
            tell(f"{found.jobs} requests: {dict(found.ended)}, {_resident() >> 20} MB")
    _wait(open_jobs, found, 0)
    context.faulty = False
    found.growth = _resident() / (settled or _resident()) - 1
    found.drift = max(abs(x - y) for x, y in zip(canary, _canary(engine), strict=True))
    figures = engine.figures()
    found.idle = engine.alive and figures["running"] == figures["waiting"] == 0
    engine.close()
    return found


def _engine(folder: Path, seed: int, found: list[str]) -> tuple[Engine, FaultyContext]:
    path = weights_path(load_settings(profile="tiny"), "smollm2-135m")
    context = FaultyContext(path, Shape(2048, batch=512, sequences=SEQUENCES, threads=1), seed)
    files = {n: write_lora(folder / f"{n}.gguf", seed) for seed, n in enumerate(ADAPTERS)}
    engine = WatchedEngine(context, Adapters(context, files, 2), found)
    plain = set(engine.vocabulary.tokens(" ".join([HOUSE, *LABELS, *LONG_LABELS])))
    context.poison = frozenset(engine.vocabulary.tokens(POISON)) - plain
    return engine, context


def _canary(engine: Engine) -> tuple[float, ...]:
    job = _choice(engine, HOUSE, "Agent 9 waits.")
    engine.submit([job])
    answer = job.future.result(timeout=120).answer
    assert isinstance(answer, LabelScores)
    return answer.logs


def _wait(jobs: Sequence[Job], found: Weathered, at_most: int) -> list[Job]:
    """Count those that have ended; wait for the oldest until no more than ``at_most`` are open."""
    left = list(jobs)
    while len(left) > at_most or (left and left[0].future.done()):
        future = left.pop(0).future
        if future.cancelled():
            found.ended["cancelled"] += 1
            continue
        error = future.exception(timeout=120)
        found.ended["answered" if error is None else str(error)[:40]] += 1
    return left


def _job(engine: Engine, rng: random.Random) -> Job:
    asked = f"Agent {rng.randint(0, 30)} has {rng.randint(0, 9)} tasks."
    adapter = rng.choice(("", "", "", *ADAPTERS))
    system, what = _template(rng), rng.random()
    if what < 0.5:
        return _choice(engine, system, asked, adapter, rng.choice([LABELS, LONG_LABELS]))
    if what < 0.55:
        return _choice(engine, system, "word " * rng.choice([200, 5000]))
    if what < 0.65:
        job = _choice(engine, system, asked, adapter)
        job.deadline = time.monotonic() + rng.random() * 0.2
        return job
    if what < 0.7:
        return _choice(engine, system, asked, "nobody")
    if what < 0.75:
        return _choice(engine, f"{system} {POISON} {system}", asked, adapter)
    return TextJob(
        *_prompt(engine, system, asked), adapter, vocabulary=engine.vocabulary,
        sampling=Sampling(max_tokens=rng.randint(1, 20), temperature=0.8),
        schema=json.dumps(SCHEMA) if what > 0.9 else None,
    )  # fmt: skip


def _template(rng: random.Random) -> str:
    """The rules of a house up to somewhere, and then what only some of its versions say."""
    common = RULES[: rng.choice([0, 3, 7, 12, 20])]
    version = [f"Version {rng.randint(0, 5)} of all this."] if rng.random() < 0.8 else []
    return " ".join([*common, *version, *rng.choice([RULES[15:], RULES[8:11], []])])


def _choice(
    engine: Engine, system: str, text: str, adapter: str = "", among: Sequence[str] = LABELS
) -> ChoiceJob:
    labels = tuple(tuple(engine.vocabulary.tokens(" " + label)) for label in among)
    trie = build_trie(labels, engine.vocabulary.end_of_turn)
    return ChoiceJob(*_prompt(engine, system, text), adapter, trie=trie)


def _prompt(engine: Engine, system: str, text: str) -> tuple[tuple[int, ...], int]:
    tokens = engine.vocabulary.tokens
    shared = tokens(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n", special=True)
    own = tokens(f"{text}<|im_end|>\n<|im_start|>assistant\nAnswer:", special=True)
    return (*shared, *own), len(shared)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a storm; 0 if nothing went wrong, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.engine_storm", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = storm(
            Path(folder), options.seconds, options.seed, lambda line: print(line, flush=True)
        )
    print(f"{found.jobs} requests: {dict(found.ended)}; memory {100 * found.growth:+.1f} %, "
          f"answers within {found.drift:.3f} nats")  # fmt: skip
    for fault in found.faults:
        print(f"fault: {fault}")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
