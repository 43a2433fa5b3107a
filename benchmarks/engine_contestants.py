"""The contestants of benchmarks.engine, each on its own.

All compute the same: for each label the sum of its tokens' log-probabilities under the whole
vocabulary, to its last token, by which the likeliest label is the answer.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.engine_ticks import LABELS, Setup, Tick, ticks
from config.catalog import BackendName, Model, Provider
from workers.backends.http_client import JsonClient
from workers.backends.http_provider import access
from workers.backends.llama_server import DEFAULTS
from workers.backends.llama_server_choice import score

CONTEXT = 6144
DEPTH = 440
"""Tokens before a prompt's own, as in the ticks."""
SLOTS = 8
PATIENCE_S = 600
"""For a request to the server."""


def sequential(setup: Setup) -> dict[str, Any]:
    """(a): nothing is kept between prompts."""
    return _library(setup, "sequential", reuse=False)


def prefix_reuse(setup: Setup) -> dict[str, Any]:
    """(b): the library keeps what the last prompt begins with."""
    return _library(setup, "prefix_reuse", reuse=True)


def _library(setup: Setup, name: str, *, reuse: bool) -> dict[str, Any]:
    """Without flash attention, which is the library's default, and with it; the faster one counts,
    and both are told."""
    variants = {
        f"{name}_{how}": _library_ticks(setup, reuse=reuse, flash=flash)
        for how, flash in (("plain", False), ("flash", True))
    }
    rates = {variant: found[0] for variant, found in variants.items()}
    best = max(rates, key=lambda variant: statistics.median(rates[variant]))
    return {"decisions_per_s": {name: rates[best]} | rates, "logs": variants[best][1],
            "best": best}  # fmt: skip


def _library_ticks(
    setup: Setup, *, reuse: bool, flash: bool
) -> tuple[list[float], list[list[list[float]]]]:
    import llama_cpp

    llm = llama_cpp.Llama(
        str(setup.path), n_ctx=2048, n_batch=512, n_threads=setup.threads, verbose=False,
        n_threads_batch=setup.threads, n_gpu_layers=setup.gpu_layers, logits_all=False,
        flash_attn=flash,
    )  # fmt: skip
    ways = _ways(llm)
    rates, logs = [], []
    for tick in ticks(setup):
        if tick.cold:
            if reuse:  # what is shared is known before the clock starts
                _library_choice(llm, tick.prompts[0], ways)
            continue
        prompts = tick.prompts if reuse else tick.prompts[: setup.few]
        said_now = []
        started = time.perf_counter()
        for prompt in prompts:
            if not reuse:
                llm.reset()
            said_now.append(_library_choice(llm, prompt, ways))
        rates.append(len(prompts) / (time.perf_counter() - started))
        logs.append(said_now)
    llm.close()
    return rates, logs


def _library_choice(llm: Any, prompt: str, ways: Sequence[tuple[int, ...]]) -> list[float]:
    """The labels' log-probabilities, by a ``create_completion`` of one token at each place where
    a label's token stands.

    A logits processor is shown the row of the whole vocabulary, so that the prompt is computed
    once without the logits of all its tokens, as ``logprobs`` or ``echo`` would need them. After
    the first place the library reuses the prompt, also in (a), and computes a token or two.
    """
    import llama_cpp
    import numpy as np

    from workers.label_paths import branches

    places = branches(ways)
    found: dict[tuple[int, ...], float] = {}
    tokens = llm.tokenize(prompt.encode(), special=True, add_bos=False)
    for place, follow in places.items():

        def look(_: Any, row: Any, place: Any = place, follow: Any = follow) -> Any:
            top = float(row.max())
            total = top + math.log(float(np.exp(row - top).sum(dtype=np.float64)))
            found.update({(*place, token): float(row[token]) - total for token in follow})
            return row

        llm.create_completion([*tokens, *place], max_tokens=1, temperature=0.0,
                              logits_processor=llama_cpp.LogitsProcessorList([look]))  # fmt: skip
    return [sum(found[way[: d + 1]] for d in range(len(way))) for way in ways]


def llama_server(setup: Setup) -> dict[str, Any]:
    """(c): eight slots, continuous batching, prompts cached by slot. A choice is asked as Uptier's
    backend for it does, a request for each place that matters; there are as many callers as slots,
    so that the requests of a choice find their prompt where the first of them left it."""
    import llama_cpp
    import xllamacpp

    vocabulary = llama_cpp.Llama(str(setup.path), vocab_only=True, verbose=False)
    ways = _ways(vocabulary)
    params = xllamacpp.CommonParams()
    params.model.path = str(setup.path)
    params.n_ctx, params.n_parallel, params.n_batch, params.n_ubatch = CONTEXT, SLOTS, 2048, 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = setup.threads
    params.n_gpu_layers, params.cont_batching, params.warmup = setup.gpu_layers, True, True
    params.hostnames, params.port, params.verbosity = ["127.0.0.1"], 0, 0
    server = xllamacpp.Server(params)
    client = _client(server.listening_address)

    def ask(prompt: str) -> list[float]:
        tokens = vocabulary.tokenize(prompt.encode(), special=True, add_bos=False)
        scores, _ = score(client, tokens, ways)
        found = (p * scores.mass for p in scores.probabilities)
        return [math.log(p) if p else -math.inf for p in found]

    rates: dict[str, list[float]] = {"llama_server_cold": [], "llama_server_warm": []}
    logs = []
    with ThreadPoolExecutor(SLOTS) as pool:
        for tick in ticks(setup):
            started = time.perf_counter()
            said_now = list(pool.map(ask, tick.prompts))
            name = "llama_server_cold" if tick.cold else "llama_server_warm"
            rates[name].append(len(tick.prompts) / (time.perf_counter() - started))
            logs += [] if tick.cold else [said_now]
    client.close()
    return {"decisions_per_s": rates, "logs": logs}


def _client(url: str) -> JsonClient:
    """A connection as Uptier's backend for such servers has it."""
    model = Model(backend=BackendName.LLAMA_SERVER, provider="own")
    provider = Provider(backend=BackendName.LLAMA_SERVER, base_url=url, local=True)
    return JsonClient(access(model, provider, DEFAULTS, None), PATIENCE_S)


def engine(setup: Setup) -> dict[str, Any]:
    """(d), and two floors: what computing own tokens alone would allow, at the rate of a prefill
    from nothing and of one that attends to the shared tokens, as own tokens must."""
    from workers.engine.context import LlamaContext, Shape
    from workers.engine.engine import Engine

    batch = 2048 if setup.gpu_layers else 512
    shape = Shape(CONTEXT, batch=batch, micro_batch=512, threads=setup.threads,
                  gpu_layers=setup.gpu_layers)  # fmt: skip
    context = LlamaContext(setup.path, shape)
    prefill = _prefill_rate(context, batch, 0)
    deep = _prefill_rate(context, batch, DEPTH)
    running = Engine(context)
    rates: dict[str, list[float]] = {
        "engine_cold": [], "engine_warm": [], "floor": [], "floor_at_depth": []
    }  # fmt: skip
    logs = []
    for tick in ticks(setup):
        seconds, answers, own_tokens = _tick(running, tick)
        rates["engine_cold" if tick.cold else "engine_warm"].append(len(tick.prompts) / seconds)
        if not tick.cold:
            rates["floor"].append(prefill * len(tick.prompts) / own_tokens)
            rates["floor_at_depth"].append(deep * len(tick.prompts) / own_tokens)
            logs.append([list(scores.logs) for scores in answers])
    rows = len(_trie(running).paths)
    running.close()
    return {"decisions_per_s": rates, "logs": logs, "rows": rows}


def _tick(running: Any, tick: Tick) -> tuple[float, list[Any], int]:
    from workers.engine.jobs import ChoiceJob

    started = time.perf_counter()
    tokens = running.vocabulary.tokens
    shared = tokens(tick.shared, special=True)
    trie = _trie(running)
    jobs = []
    for prompt in tick.prompts:
        rest = tokens(prompt.removeprefix(tick.shared), special=True)
        jobs.append(ChoiceJob((*shared, *rest), len(shared), trie=trie))
    running.submit(jobs)
    answers = [job.future.result().answer for job in jobs]
    seconds = time.perf_counter() - started
    return seconds, answers, sum(len(j.prompt) - len(shared) for j in jobs)


def _prefill_rate(context: Any, batch: int, depth: int) -> float:
    """Tokens per second of a full batch of one sequence that has ``depth`` tokens; best of five."""
    from workers.engine.context import Span

    best = 0.0
    for _ in range(5):
        context.clear()
        if depth:
            context.decode([Span([100 + i % 1000 for i in range(depth)], 0, (1,))])
        started = time.perf_counter()
        tokens = [100 + i % 1000 for i in range(batch)]
        context.decode([Span(tokens, depth, (1,), wanted=True)])
        best = max(best, batch / (time.perf_counter() - started))
    context.clear()
    return best


def _trie(running: Any) -> Any:
    from workers.engine.labels import build_trie

    ends = tuple(tuple(running.vocabulary.tokens(f" {label}")) for label in LABELS)
    return build_trie(ends, running.vocabulary.end_of_turn)


def _ways(llm: Any) -> list[tuple[int, ...]]:
    """The labels' tokens; none of them is the start of another."""
    return [tuple(llm.tokenize(f" {label}".encode(), add_bos=False)) for label in LABELS]


CONTESTANTS: dict[str, Callable[[Setup], dict[str, Any]]] = {
    "sequential": sequential,
    "prefix_reuse": prefix_reuse,
    "llama_server": llama_server,
    "engine": engine,
}
