"""The engine with the real SmolLM2: batches, prefixes, faults of single requests, recovery."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from config.catalog import Sampling
from config.errors import BackendError
from config.settings import load_settings
from tests.integration.stacks import wait_until
from workers.engine import context as contexts
from workers.engine.context import ContextLost, LlamaContext, NoRoom, Shape
from workers.engine.engine import Engine, EngineDied
from workers.engine.jobs import ChoiceJob, Job, TextJob, Written
from workers.engine.labels import LabelScores, build_trie
from workers.models import weights_path

CELLS = 2048
LABELS = ("CONTINUE", "REST", "ASK", "ASK_MANAGER", "BLOCKED", "ASK MANAGER AGAIN")
RULES = " ".join(f"Rule {i}: be careful with item {i}." for i in range(20))
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["name", "count"],
}


@pytest.fixture(scope="module")
def open_engine(smollm2: None) -> Iterator[Any]:
    path = weights_path(load_settings(profile="tiny"), "smollm2-135m")
    opened: list[Engine] = []

    def build(**more: Any) -> Engine:
        engine = Engine(
            LlamaContext(path, Shape(CELLS, batch=512, sequences=64, threads=1)), **more
        )
        opened.append(engine)
        return engine

    yield build
    for engine in opened:
        engine.close()


@pytest.fixture(scope="module")
def engine(open_engine: Any) -> Engine:
    built: Engine = open_engine()
    return built


def prompt(engine: Engine, text: str, system: str = RULES) -> tuple[tuple[int, ...], int]:
    tokens = engine.vocabulary.tokens
    shared = tokens(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n", special=True)
    own = tokens(f"{text}<|im_end|>\n<|im_start|>assistant\nAnswer:", special=True)
    return (*shared, *own), len(shared)


def choice(engine: Engine, text: str, **more: Any) -> ChoiceJob:
    labels = tuple(tuple(engine.vocabulary.tokens(" " + label)) for label in LABELS)
    trie = build_trie(labels, engine.vocabulary.end_of_turn)
    return ChoiceJob(*prompt(engine, text), trie=trie, **more)


def text(engine: Engine, asked: str, schema: object = None, **sampling: Any) -> TextJob:
    given = Sampling(**({"max_tokens": 12, "temperature": 0.0} | sampling))
    return TextJob(
        *prompt(engine, asked), vocabulary=engine.vocabulary, sampling=given,
        schema=None if schema is None else json.dumps(schema),
    )  # fmt: skip


def run(engine: Engine, *jobs: Job) -> list[Any]:
    engine.submit(jobs)
    return [job.future.result(timeout=120).answer for job in jobs]


def test_a_batch_answers_as_single_requests_do(engine: Engine) -> None:
    questions = [f"Agent {i} has {i % 7} tasks and {i % 3} blockers." for i in range(12)]
    together: list[LabelScores] = run(engine, *(choice(engine, q) for q in questions))
    alone: list[LabelScores] = [run(engine, choice(engine, q))[0] for q in questions]
    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.05)
        assert sum(one.probabilities) == pytest.approx(1)
        assert 0 < one.mass <= 1


def test_a_label_is_as_likely_as_its_tokens_one_after_another(engine: Engine) -> None:
    """Brute force: each label's tokens as text that follows, one forward pass a token."""
    asked = choice(engine, "Agent 1 waits for a reply.")
    [scores] = run(engine, asked)
    single = [("CONTINUE", "REST"), ("REST", "BLOCKED")]
    for one, other in single:
        i, j = LABELS.index(one), LABELS.index(other)
        labels = tuple(tuple(engine.vocabulary.tokens(" " + x)) for x in (one, other))
        pair = ChoiceJob(*prompt(engine, "Agent 1 waits for a reply."),
                         trie=build_trie(labels, engine.vocabulary.end_of_turn))  # fmt: skip
        [found] = run(engine, pair)
        assert scores.logs[i] - scores.logs[j] == pytest.approx(
            found.logs[0] - found.logs[1], abs=0.2
        )


def test_a_cold_tick_computes_its_prefix_once(open_engine: Any) -> None:
    engine: Engine = open_engine()
    jobs = [choice(engine, f"Agent {i} is new here.") for i in range(20)]
    shared, own = jobs[0].hint, sum(len(j.prompt) - j.hint for j in jobs)
    run(engine, *jobs)
    branches = sum(job.extra for job in jobs)
    assert engine.stats.rows <= shared + own + branches
    assert engine.stats.prefix_hit_rate > 0.7


def test_a_reproducible_engine_answers_the_same_to_the_last_bit(open_engine: Any) -> None:
    one, other = open_engine(reproducible=True), open_engine(reproducible=True)

    def job(engine: Engine, number: int) -> Job:
        asked = f"Agent {number} has {number % 7} tasks."
        if number % 3 == 0:
            return text(engine, asked, temperature=0.9)
        made = choice(engine, asked)
        if number % 2:
            made.prompt, made.hint = prompt(engine, asked, system="Another house. " + RULES)
        return made

    together = run(one, *(job(one, i) for i in range(12)))
    backwards = [run(other, job(other, i))[0] for i in reversed(range(12))]
    assert together == backwards[::-1]


def test_texts_stop_where_they_should(engine: Engine) -> None:
    [whole] = run(engine, text(engine, "Tell me about birds and the sea."))
    assert isinstance(whole, Written)
    assert whole.truncated
    assert whole.tokens == 12
    stop = whole.text.split()[1]
    [cut] = run(engine, text(engine, "Tell me about birds and the sea.", stops=(stop,)))
    assert stop not in cut.text
    assert not cut.truncated


def test_the_same_seed_writes_the_same_and_company_changes_nothing(engine: Engine) -> None:
    def job(seed: int) -> TextJob:
        made = text(engine, "Say something nice.", temperature=1.0)
        made.seed = seed
        return made

    first, second, other = run(engine, job(1), job(1), job(2))
    assert first.text == second.text
    assert first.text != other.text


@pytest.mark.parametrize("limit", [4, 9, 60])
def test_json_always_parses_even_when_it_is_cut_off(engine: Engine, limit: int) -> None:
    jobs = [
        text(engine, f"Describe agent {i} as JSON.", SCHEMA, max_tokens=limit, temperature=0.9)
        for i in range(4)
    ]
    for written in run(engine, *jobs):
        found = json.loads(written.text)
        if not written.truncated:
            assert set(found) == {"name", "count"}


def test_one_bad_request_fails_alone(engine: Engine) -> None:
    good, late = (
        choice(engine, "Agent 5 is fine."),
        choice(engine, "Agent 6 is late.", deadline=0.0),
    )
    huge = choice(engine, "word " * 3000)
    nobody = choice(engine, "Agent 7 has a style.", adapter="nobody")
    bad_schema = text(engine, "JSON please.", {"type": "no such type"})
    engine.submit([good, late, huge, nobody, bad_schema])
    assert isinstance(good.future.result(60).answer, LabelScores)
    for job, said in (
        (late, "deadline"), (huge, "exceed the context"), (nobody, "has no file"),
        (bad_schema, "grammar"),
    ):  # fmt: skip
        with pytest.raises(BackendError, match=said):
            job.future.result(60)
    assert engine.alive


def test_a_cancelled_text_makes_room(engine: Engine) -> None:
    long = text(engine, "Tell a long story.", max_tokens=500)
    engine.submit([long])
    time.sleep(0.3)
    assert long.future.cancel()
    run(engine, choice(engine, "Agent 8 goes on."))
    with pytest.raises(CancelledError):
        long.future.result(0)
    wait_until(lambda: is_idle(engine))


def is_idle(engine: Engine) -> bool:
    found = engine.figures()
    return (found["running"], found["waiting"]) == (0, 0)


def fail_once(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int = 1) -> None:
    real, left = LlamaContext.decode, [error] * times

    def decode(self: LlamaContext, spans: Any) -> Any:
        if left:
            raise left.pop()
        return real(self, spans)

    monkeypatch.setattr(contexts.LlamaContext, "decode", decode)


@pytest.mark.parametrize(
    "error", [NoRoom("full"), ContextLost("code -3"), contexts.BadBatch("gap")], ids=str
)
def test_each_code_of_llama_decode_is_recovered_from(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine: Engine = open_engine()
    run(engine, choice(engine, "Agent 1 warms it up."))
    fail_once(monkeypatch, error)
    jobs = [choice(engine, f"Agent {i} goes on.") for i in range(4)]
    assert all(isinstance(found, LabelScores) for found in run(engine, *jobs))


def test_a_context_that_is_lost_twice_fails_its_requests(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Engine = open_engine()
    fail_once(monkeypatch, ContextLost("code -3"), times=2)
    job = choice(engine, "Agent 1.")
    engine.submit([job])
    with pytest.raises(ContextLost):
        job.future.result(60)
    run(engine, choice(engine, "Agent 2."))


def test_the_engines_death_fails_its_futures_and_tells_its_worker(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    engine: Engine = open_engine(on_death=lambda: told.append(True))
    fail_once(monkeypatch, RuntimeError("a bug"))
    job = choice(engine, "Agent 1.")
    engine.submit([job])
    with pytest.raises(EngineDied):
        job.future.result(60)
    wait_until(lambda: bool(told))
    with pytest.raises(EngineDied):
        engine.submit([choice(engine, "Agent 2.")])


def test_whatever_comes_nothing_crashes_and_nothing_leaks(engine: Engine) -> None:
    """A minute at most of random submissions, cancellations, deadlines, oversize requests."""
    rng = random.Random(11)
    jobs: list[Job] = []
    until = time.monotonic() + 20
    while time.monotonic() < until and len(jobs) < 400:
        batch = [random_job(engine, rng) for _ in range(rng.randint(1, 12))]
        engine.submit(batch)
        jobs += batch
        for job in rng.sample(jobs, min(3, len(jobs))):
            job.future.cancel()
        time.sleep(rng.random() * 0.05)
    for job in jobs:
        if not job.future.cancelled():
            job.future.exception(timeout=120)
    run(engine, choice(engine, "Agent 9 is the last."))
    wait_until(lambda: is_idle(engine))


def random_job(engine: Engine, rng: random.Random) -> Job:
    asked = f"Agent {rng.randint(0, 30)} has {rng.randint(0, 9)} tasks."
    what = rng.random()
    if what < 0.5:
        return choice(engine, asked)
    if what < 0.6:
        return choice(engine, "word " * rng.choice([200, 5000]))
    if what < 0.7:
        return choice(engine, asked, deadline=time.monotonic() + rng.random() * 0.2)
    if what < 0.75:
        return choice(engine, asked, adapter="nobody")
    schema = SCHEMA if what > 0.9 else None
    return text(engine, asked, schema, max_tokens=rng.randint(1, 20), temperature=0.8)
