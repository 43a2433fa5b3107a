"""The engine with the real SmolLM2: batches, prefixes, faults of single requests, recovery."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from config.catalog import Sampling
from config.errors import BackendError
from config.settings import load_settings
from routing.decision import JsonOutput
from tests.faults.engine_storm import storm
from tests.integration.stacks import wait_until
from workers.backends.base import Request
from workers.backends.llama_cpp import LlamaBackend
from workers.engine import context as contexts
from workers.engine.context import ContextLost, LlamaContext, NoRoom, Shape, Span
from workers.engine.engine import Engine, EngineDied
from workers.engine.jobs import ChoiceJob, Job, TextJob, Written
from workers.engine.labels import LabelScores, build_trie
from workers.measure import quantize
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
    return [job.future.result(timeout=400).answer for job in jobs]


def test_a_batch_answers_as_single_requests_do(engine: Engine) -> None:
    questions = [f"Agent {i} has {i % 7} tasks and {i % 3} blockers." for i in range(12)]
    together: list[LabelScores] = run(engine, *(choice(engine, q) for q in questions))
    alone: list[LabelScores] = [run(engine, choice(engine, q))[0] for q in questions]
    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.05)
        assert sum(one.probabilities) == pytest.approx(1)
        assert 0 < one.mass <= 1


def test_a_label_is_as_likely_as_its_tokens_one_after_another(
    smollm2: None, tmp_path: Path
) -> None:
    """Brute force: each token's probability from a plain decode of the prompt and all before it.

    Labels of several tokens, that share beginnings and begin one another. In F32, where a row's
    logits hardly depend on the rows beside it (in BF16 they do, by up to 0.2 a label).
    """
    path = tmp_path / "f32.gguf"
    quantize(weights_path(load_settings(profile="tiny"), "smollm2-135m"), path, "F32", 2)
    engine = Engine(LlamaContext(path, Shape(CELLS, batch=512, sequences=64, threads=1)))
    plain = LlamaContext(path, Shape(512, batch=512, sequences=2, threads=1))
    path.unlink()
    ends = [tuple(engine.vocabulary.tokens(" " + label)) for label in LABELS]
    begun = [any(o != e and o[: len(e)] == e for o in ends) for e in ends]
    assert sum(begun) == 1
    assert max(map(len, ends)) > 2
    stop = (engine.vocabulary.end_of_turn,)
    ways = [end + stop * is_start for end, is_start in zip(ends, begun, strict=True)]
    for asked in ("Agent 1 waits for a reply.", "Nothing is left to do."):
        job = choice(engine, asked)
        job.prompt, job.hint = prompt(engine, asked, system="Decide what comes next.")
        [scores] = run(engine, job)
        logs = [sum(log_probabilities(plain, job.prompt, way)) for way in ways]
        assert scores.logs == pytest.approx(logs, abs=0.005)
        whole = sum(math.exp(log) for log in logs)
        assert scores.mass == pytest.approx(whole, rel=0.005)
        shares = [math.exp(log) / whole for log in logs]
        assert scores.probabilities == pytest.approx(shares, abs=0.002)
    engine.close()
    plain.close()
    plain.free_model()


def log_probabilities(
    context: LlamaContext, prompt: tuple[int, ...], way: tuple[int, ...]
) -> Iterator[float]:
    """Of each token after the prompt and the tokens before it, each in a context of its own."""
    for depth, token in enumerate(way):
        context.clear()
        [row] = context.decode([Span((*prompt, *way[:depth]), 0, (0,), wanted=True)])
        logits = row.astype(np.float64)
        yield float(logits[token] - np.logaddexp.reduce(logits))


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


def test_a_batch_may_be_smaller_than_the_number_of_sequences(smollm2: None) -> None:
    path = weights_path(load_settings(profile="tiny"), "smollm2-135m")
    engine = Engine(LlamaContext(path, Shape(512, batch=32, sequences=64, threads=1)))
    found = run(engine, *[choice(engine, f"Agent {i}.") for i in range(3)])
    assert all(isinstance(one, LabelScores) for one in found)
    engine.close()


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


def fail_once(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """The next passes fail, each with one of ``errors``."""
    real, left = LlamaContext.decode, list(errors)

    def decode(self: LlamaContext, spans: Any) -> Any:
        if left:
            raise left.pop(0)
        return real(self, spans)

    monkeypatch.setattr(contexts.LlamaContext, "decode", decode)


@pytest.mark.parametrize(("code", "lost"), [(1, 0), (2, 1), (-1, 0), (-2, 1)])
def test_each_code_of_llama_decode_is_recovered_from(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, code: int, lost: int
) -> None:
    engine: Engine = open_engine()
    run(engine, choice(engine, "Agent 1 warms it up."))
    real, codes = llama_cpp.llama_decode, [code]
    monkeypatch.setattr(
        llama_cpp, "llama_decode",
        lambda *given: codes.pop() if codes else real(*given),
    )  # fmt: skip
    jobs = [choice(engine, f"Agent {i} goes on.") for i in range(4)]
    assert all(isinstance(found, LabelScores) for found in run(engine, *jobs))
    assert not codes
    assert engine.stats.contexts_lost == lost


@pytest.mark.parametrize("then", [NoRoom("full"), ContextLost("code -3")], ids=str)
def test_what_befalls_a_part_of_a_refused_batch_is_recovered_from(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, then: Exception
) -> None:
    """A batch is refused, and of its parts, asked for alone, the first meets another fault."""
    engine: Engine = open_engine()
    fail_once(monkeypatch, contexts.BadBatch("gap"), then)
    jobs = [choice(engine, f"Agent {i}.") for i in range(3)]
    for job in jobs:
        job.hint = 0
        job.prompt = job.prompt[-8:]
    assert all(isinstance(found, LabelScores) for found in run(engine, *jobs))


def fail_where(monkeypatch: pytest.MonkeyPatch, error: Exception, hits: Any) -> None:
    """Every pass with a span that ``hits`` picks fails."""
    real = LlamaContext.decode

    def decode(self: LlamaContext, spans: Any) -> Any:
        if any(hits(span) for span in spans):
            raise error
        return real(self, spans)

    monkeypatch.setattr(contexts.LlamaContext, "decode", decode)


@pytest.mark.parametrize("error", [NoRoom("full"), contexts.BadBatch("gap")], ids=str)
def test_a_prefix_that_is_refused_fails_who_needs_it_and_nobody_else(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine: Engine = open_engine()
    fail_where(monkeypatch, error, lambda span: not span.wanted and span.start == 0)
    bad = [choice(engine, f"Agent {i}.") for i in range(3)]
    below = [choice(engine, f"Agent {i}.") for i in range(2)]
    for one in below:
        one.prompt, one.hint = prompt(engine, "Agent.", system=f"{RULES} And {RULES}")
    good = choice(engine, "Agent 4.")
    good.prompt, good.hint = good.prompt[-8:], 0
    engine.submit([*bad, *below, good])
    for job in (*bad, *below):
        with pytest.raises(type(error)):
            job.future.result(30)
    assert isinstance(good.future.result(30).answer, LabelScores)
    monkeypatch.undo()
    run(engine, choice(engine, "Agent 1."))


def test_a_context_that_is_lost_twice_fails_its_requests(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Engine = open_engine()
    fail_once(monkeypatch, ContextLost("code -3"), ContextLost("code -3"))
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


class Fickle(Future[Any]):
    """Is cancelled by its asker at the very moment at which it would end."""

    def set_result(self, result: Any) -> None:
        self.cancel()
        super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        self.cancel()
        super().set_exception(exception)


def test_a_request_that_is_cancelled_as_it_ends_harms_nobody(open_engine: Any) -> None:
    engine: Engine = open_engine()
    late, soon = choice(engine, "Agent 1.", deadline=0.0), choice(engine, "Agent 2.")
    late.future, soon.future = Fickle(), Fickle()
    found = run(engine, choice(engine, "Agent 3."))  # warm
    engine.submit([late, soon])
    found += run(engine, choice(engine, "Agent 4."))
    assert all(isinstance(one, LabelScores) for one in found)
    assert engine.alive


@pytest.mark.parametrize("dies", [False, True])
def test_what_comes_while_an_engine_ends_is_refused_and_not_forgotten(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    engine: Engine = open_engine()
    ending, go_on = threading.Event(), threading.Event()
    close = engine._adapters.close

    def slow() -> None:
        ending.set()
        go_on.wait(30)
        close()

    monkeypatch.setattr(engine._adapters, "close", slow)
    closing = threading.Thread(target=engine.close)
    if dies:
        fail_once(monkeypatch, RuntimeError("a bug"))
        engine.submit([choice(engine, "Agent 1.")])
    else:
        closing.start()
    ending.wait(30)
    with pytest.raises(EngineDied, match="a bug" if dies else "closed"):
        engine.submit([choice(engine, "Agent 2.")])
    go_on.set()
    if not dies:
        closing.join()


def test_a_death_is_told_even_if_nothing_else_can_be_ended(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    engine: Engine = open_engine(on_death=lambda: told.append(True))

    def broken(_error: BackendError) -> None:
        raise RuntimeError("another bug")

    monkeypatch.setattr(engine, "_fail_all", broken)
    monkeypatch.setattr(threading, "excepthook", lambda _arguments: None)
    fail_once(monkeypatch, RuntimeError("a bug"))
    engine.submit([choice(engine, "Agent 1.")])
    wait_until(lambda: bool(told))


def test_whatever_comes_nothing_crashes_and_nothing_leaks(smollm2: None, tmp_path: Path) -> None:
    """A minute of what ``make faults`` does for an hour."""
    found = storm(tmp_path, seconds=60, seed=11)
    assert found.faults == []
    assert found.ended["answered"] > 0
    assert found.ended["cancelled"] > 0


def test_no_schema_kills_the_process(smollm2: None) -> None:
    """In a process of its own: llama.cpp overflows its stack over some grammars."""
    command = [sys.executable, "-m", "tests.integration.grammar_fuzz"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "alive"), ended.stderr[-2000:]


@pytest.mark.parametrize("length", [2_000, 20_000])
def test_a_schema_of_large_bounds_is_answered(engine: Engine, length: int) -> None:
    schema = {"type": "object", "properties": {"reason": {"type": "string", "maxLength": length}},
              "required": ["reason"]}  # fmt: skip
    beside = choice(engine, "Agent 1 waits.")
    [written, scores] = run(engine, text(engine, "Say why.", schema, max_tokens=16), beside)
    assert set(json.loads(written.text)) <= {"reason"}
    assert sum(scores.probabilities) == pytest.approx(1)


def test_json_is_written_in_the_order_that_was_asked_for(engine: Engine) -> None:
    backend = LlamaBackend(engine, CELLS)
    words = {"type": "string", "maxLength": 8}
    for names in (("reason", "action"), ("action", "reason")):
        schema = {"type": "object", "properties": dict.fromkeys(names, words),
                  "required": list(names)}  # fmt: skip
        [done] = backend.answer([asked_as("json", JsonOutput(json_schema=schema))])
        assert list(json.loads(done.raw)) == list(names)


def test_a_seed_draws_the_same_text_in_company_as_alone(engine: Engine) -> None:
    """Batches move logits by rounding; that changes a draw only where two are nearly tied."""

    def tale(seed: int) -> TextJob:
        job = text(engine, "Write a tale about the sea.", max_tokens=16, temperature=1.0)
        job.seed = seed
        return job

    alone = [run(engine, tale(seed))[0].text for seed in range(4)]
    assert len(set(alone)) == 4
    same = 0
    for seed in range(4):
        others = [text(engine, f"Company {i}.", max_tokens=8 + i) for i in range(2 * seed + 1)]
        same += run(engine, *others, tale(seed))[-1].text == alone[seed]
    assert same >= 3


def asked_as(name: str, output: JsonOutput) -> Request:
    sampling = Sampling(max_tokens=60, temperature=0)
    return Request(id=name, kind="k", system="", prompt="What now?", output=output,
                   sampling=sampling, seed=0)  # fmt: skip
