"""JSON answers of 200 tokens by the engine: tokens per second at 1, 8 and 32 sequences at once.

The peers in the same run, with the same schema: the library's own ``create_chat_completion``, one
answer after another, without and with flash attention; and llama.cpp's server (package xllamacpp)
with continuous batching, as many slots as callers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.engine import PROFILES
from cli.output import say
from config.catalog import Sampling
from config.settings import load_settings
from workers.engine.context import LlamaContext, Shape
from workers.engine.engine import Engine
from workers.engine.jobs import TextJob, Written
from workers.gpus import physical_cores
from workers.models import weights_path

TOKENS = 200
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"steps": {"type": "array", "items": {"type": "string"}, "minItems": 30}},
    "required": ["steps"],
}
AT_ONCE = (1, 8, 32)
SERVER_AT_ONCE = (8, 32)
CELLS = 256
"""Of the context, for each answer and its question."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", choices=sorted(PROFILES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    path = weights_path(load_settings(profile=PROFILES[options.model]), options.model)
    say(f"{path.name}, {options.threads} threads, {options.repeats} repeats, tokens/s")
    found = {
        "library_plain": _library(str(path), options, flash=False),
        "library_flash": _library(str(path), options, flash=True),
    }
    for count in SERVER_AT_ONCE:
        say(f"server, {count} at once ...")
        found[f"server_{count}"] = _server(str(path), options, count)
    shape = Shape(max(AT_ONCE) * CELLS, 512, 512, 256, options.threads)
    engine = Engine(LlamaContext(path, shape))
    for count in AT_ONCE:
        say(f"{count} at once ...")
        found[f"engine_{count}"] = [_together(engine, count, r) for r in range(options.repeats)]
    engine.close()
    for name, rates in found.items():
        spread = f"{min(rates):.1f} to {max(rates):.1f}"
        print(f"  {name:<14}{statistics.median(rates):8.1f}  ({spread})")
    if options.json:
        print(json.dumps({name: statistics.median(rates) for name, rates in found.items()}))
    return 0


def _question(number: int) -> str:
    return f"List the steps by which team {number} releases its software, as JSON."


def _library(path: str, options: argparse.Namespace, *, flash: bool) -> list[float]:
    import llama_cpp

    llm = llama_cpp.Llama(
        path, n_ctx=1024, n_threads=options.threads, verbose=False, flash_attn=flash
    )
    rates = []
    for repeat in range(options.repeats):
        started = time.perf_counter()
        said: Any = llm.create_chat_completion(
            [{"role": "user", "content": _question(repeat)}],
            response_format={"type": "json_object", "schema": SCHEMA},
            max_tokens=TOKENS, temperature=0.0,
        )  # fmt: skip
        rates.append(said["usage"]["completion_tokens"] / (time.perf_counter() - started))
    llm.close()
    return rates


def _server(path: str, options: argparse.Namespace, count: int) -> list[float]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel = count * CELLS, count
    params.n_batch = params.n_ubatch = 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.cont_batching, params.verbosity = True, 0
    server = xllamacpp.Server(params)

    def ask(number: int) -> int:
        said: Any = server.handle_completions(
            {"prompt": _question(number), "max_tokens": TOKENS, "temperature": 0.0,
             "json_schema": SCHEMA}
        )  # fmt: skip
        return int(said["usage"]["completion_tokens"])

    rates = []
    with ThreadPoolExecutor(count) as pool:
        for repeat in range(options.repeats):
            started = time.perf_counter()
            written = sum(pool.map(ask, range(1000 * repeat, 1000 * repeat + count)))
            rates.append(written / (time.perf_counter() - started))
    return rates


def _together(engine: Engine, count: int, repeat: int) -> float:
    tokens = engine.vocabulary.tokens
    jobs = [
        TextJob(
            tuple(tokens(_question(1000 * repeat + i), special=True)), 0,
            vocabulary=engine.vocabulary, schema=json.dumps(SCHEMA, sort_keys=True),
            sampling=Sampling(max_tokens=TOKENS, temperature=0.0),
        )
        for i in range(count)
    ]  # fmt: skip
    started = time.perf_counter()
    engine.submit(jobs)
    written = 0
    for job in jobs:
        answer = job.future.result().answer
        assert isinstance(answer, Written)
        json.loads(answer.text)
        written += answer.tokens
    return written / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
