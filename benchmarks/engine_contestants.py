"""The contestants of benchmarks.engine, each on its own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABELS = ("CONTINUE", "SWITCH", "IDLE", "BLOCKED", "ASK", "REST")
CONTEXT = 6144
MOODS = ("calm", "tired", "eager", "worried", "proud")
RULES = (
    "keep what is started in order before anything new is begun",
    "a colleague who waits for you comes before your own comfort",
    "whoever is blocked says so at once and names what is missing",
    "work of high priority is not left for work of low priority",
    "nobody works on more than two things at the same time",
    "a deadline of less than two days outweighs all other wishes",
    "ask the manager only after the team has been asked",
    "rest when nothing is due and the day is nearly over",
)


@dataclass(frozen=True)
class Setup:
    """What all contestants share."""

    path: Path
    threads: int
    repeats: int
    prompts: int
    gpu_layers: int


@dataclass(frozen=True)
class Tick:
    """Prompts that share their beginning; ``cold`` if it is new."""

    prompts: tuple[str, ...]
    shared: str
    cold: bool


def ticks(setup: Setup) -> Iterator[Tick]:
    """A cold and a warm tick for each repeat; every repeat has a beginning of its own."""
    for repeat in range(setup.repeats):
        rng = random.Random(repeat)
        shared = template(repeat, rng)
        for cold in (True, False):
            yield Tick(tuple(shared + own(rng) for _ in range(setup.prompts)), shared, cold)


def template(number: int, rng: random.Random) -> str:
    """About 440 tokens."""
    rules = [f"{i}. In house {number}, {rng.choice(RULES)}." for i in range(1, 25)]
    return (
        f"<|im_start|>system\nHouse {number}. You decide for one employee what to do next.\n"
        + "\n".join(rules)
        + f"\nAnswer with one of: {', '.join(LABELS)}.<|im_end|>\n<|im_start|>user\n"
    )


def own(rng: random.Random) -> str:
    """About 40 tokens."""
    return (
        f"Agent {rng.randint(100, 999)} is {rng.choice(MOODS)}, has {rng.randint(0, 9)} open "
        f"tasks, {rng.randint(0, 3)} blockers, next deadline in {rng.randint(1, 30)} days."
        "<|im_end|>\n<|im_start|>assistant\nAnswer:"
    )


def sequential(setup: Setup) -> dict[str, Any]:
    """(a): nothing is kept between prompts."""
    return _library(setup, "sequential", reuse=False)


def prefix_reuse(setup: Setup) -> dict[str, Any]:
    """(b): the library keeps what the last prompt begins with."""
    return _library(setup, "prefix_reuse", reuse=True)


def _library(setup: Setup, name: str, *, reuse: bool) -> dict[str, Any]:
    import llama_cpp

    llm = llama_cpp.Llama(
        str(setup.path), n_ctx=2048, n_batch=512, n_threads=setup.threads, verbose=False,
        n_threads_batch=setup.threads, n_gpu_layers=setup.gpu_layers, logits_all=False,
    )  # fmt: skip
    tokens = {label: llm.tokenize(f" {label}".encode(), add_bos=False)[0] for label in LABELS}
    bias = {str(token): 100.0 for token in tokens.values()}
    rates, labels = [], []
    for tick in ticks(setup):
        started = time.perf_counter()
        for prompt in tick.prompts:
            if not reuse:
                llm.reset()
            said = llm.create_completion(
                llm.tokenize(prompt.encode(), special=True, add_bos=False),
                max_tokens=1, temperature=0.0, logit_bias=bias,
            )  # fmt: skip
            labels.append(_label(said["choices"][0]["text"]))
        rates.append(len(tick.prompts) / (time.perf_counter() - started))
    return {"decisions_per_s": {name: rates[1::2]}, "labels": labels}


def llama_server(setup: Setup) -> dict[str, Any]:
    """(c): eight slots, continuous batching, prompts cached by slot."""
    import llama_cpp
    import xllamacpp

    vocabulary = llama_cpp.Llama(str(setup.path), vocab_only=True, verbose=False)
    bias = [[vocabulary.tokenize(f" {x}".encode(), add_bos=False)[0], 100.0] for x in LABELS]
    params = xllamacpp.CommonParams()
    params.model.path = str(setup.path)
    params.n_ctx, params.n_parallel, params.n_batch, params.n_ubatch = CONTEXT, 8, 2048, 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = setup.threads
    params.n_gpu_layers, params.cont_batching, params.warmup = setup.gpu_layers, True, True
    server = xllamacpp.Server(params)

    def ask(prompt: str) -> str:
        said = server.handle_completions(
            {"prompt": prompt, "n_predict": 1, "max_tokens": 1, "temperature": 0.0,
             "logit_bias": bias, "cache_prompt": True}
        )  # fmt: skip
        return _label(said["choices"][0]["text"] if "choices" in said else said["content"])

    rates: dict[str, list[float]] = {"llama_server_cold": [], "llama_server_warm": []}
    labels = []
    with ThreadPoolExecutor(setup.prompts) as pool:
        for tick in ticks(setup):
            started = time.perf_counter()
            labels += list(pool.map(ask, tick.prompts))
            name = "llama_server_cold" if tick.cold else "llama_server_warm"
            rates[name].append(len(tick.prompts) / (time.perf_counter() - started))
    return {"decisions_per_s": rates, "labels": labels}


def engine(setup: Setup) -> dict[str, Any]:
    """(d), and the floor: what computing own tokens alone would allow."""
    from workers.engine.context import LlamaContext, Shape
    from workers.engine.engine import Engine

    batch = 2048 if setup.gpu_layers else 512
    shape = Shape(CONTEXT, batch=batch, micro_batch=512, threads=setup.threads,
                  gpu_layers=setup.gpu_layers)  # fmt: skip
    context = LlamaContext(setup.path, shape)
    prefill = _prefill_rate(context, batch)
    running = Engine(context)
    rates: dict[str, list[float]] = {"engine_cold": [], "engine_warm": [], "floor": []}
    labels: list[str] = []
    margins: list[float] = []
    for tick in ticks(setup):
        seconds, answers, own_tokens = _tick(running, tick)
        rates["engine_cold" if tick.cold else "engine_warm"].append(len(tick.prompts) / seconds)
        if not tick.cold:
            rates["floor"].append(prefill * len(tick.prompts) / own_tokens)
        for scores in answers:
            ranked = sorted(scores.logs, reverse=True)
            labels.append(LABELS[scores.logs.index(ranked[0])])
            margins.append(ranked[0] - ranked[1])
    running.close()
    return {"decisions_per_s": rates, "labels": labels, "margins": margins,
            "prefill_tokens_per_s": prefill}  # fmt: skip


def _tick(running: Any, tick: Tick) -> tuple[float, list[Any], int]:
    from workers.engine.jobs import ChoiceJob
    from workers.engine.labels import build_trie

    started = time.perf_counter()
    tokens = running.vocabulary.tokens
    shared = tokens(tick.shared, special=True)
    ends = tuple(tuple(tokens(f" {label}")) for label in LABELS)
    trie = build_trie(ends, running.vocabulary.end_of_turn)
    jobs = []
    for prompt in tick.prompts:
        rest = tokens(prompt.removeprefix(tick.shared), special=True)
        jobs.append(ChoiceJob((*shared, *rest), len(shared), trie=trie))
    running.submit(jobs)
    answers = [job.future.result().answer for job in jobs]
    seconds = time.perf_counter() - started
    return seconds, answers, sum(len(j.prompt) - len(shared) for j in jobs)


def _prefill_rate(context: Any, batch: int) -> float:
    """Tokens per second of a full batch of one sequence, the best of five."""
    from workers.engine.context import Span

    best = 0.0
    for _ in range(5):
        context.clear()
        started = time.perf_counter()
        context.decode([Span([100 + i % 1000 for i in range(batch)], 0, (1,), wanted=True)])
        best = max(best, batch / (time.perf_counter() - started))
    context.clear()
    return best


def _label(text: str) -> str:
    """The label that a first token begins, or the text as it is."""
    start = text.strip()
    return next((label for label in LABELS if start and label.startswith(start)), text)


CONTESTANTS: dict[str, Callable[[Setup], dict[str, Any]]] = {
    "sequential": sequential,
    "prefix_reuse": prefix_reuse,
    "llama_server": llama_server,
    "engine": engine,
}
