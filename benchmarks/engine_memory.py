"""The engine's memory beside its formula, and over 10,000 decisions.

The formula: weights as they lie on disk, the KV cache (2 x layers x KV heads x head size x 2
bytes x cells), the logits of as many rows as a pass may want. What the process had before it loaded
anything is subtracted; llama.cpp's own work space and Python's growth are what is left over.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import psutil

from benchmarks.engine import PROFILES
from benchmarks.engine_ticks import LABELS
from cli.output import say
from config.settings import load_settings
from workers.engine.context import LlamaContext, Shape, silence
from workers.engine.engine import Engine
from workers.engine.jobs import ChoiceJob
from workers.engine.labels import build_trie
from workers.gpus import physical_cores
from workers.models import weights_path

TICK = 50
TEMPLATES = 8
MB = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", choices=sorted(PROFILES))
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    path = weights_path(load_settings(profile=PROFILES[options.model]), options.model)
    silence()
    llama_cpp.llama_backend_init()
    before = _resident()
    shape = Shape(6144, batch=512, micro_batch=512, threads=physical_cores())
    context = LlamaContext(path, shape)
    formula = _formula(context, path)
    engine = Engine(context)
    seen = []
    for number in range(0, options.decisions, TICK):
        _tick(engine, number)
        seen.append(_resident() - before)
        if number % 1000 == 0:
            say(f"{number + TICK} decisions, {seen[-1] / MB:.0f} MB")
    engine.close()
    tenth = max(1, len(seen) // 10)
    figures = {
        "formula_mb": round(formula / MB, 1),
        "peak_mb": round(max(seen) / MB, 1),
        "peak_over_formula": round(max(seen) / formula, 3),
        "first_tenth_mb": round(max(seen[:tenth]) / MB, 1),
        "last_tenth_mb": round(max(seen[-tenth:]) / MB, 1),
    }
    print(f"{path.name}: {options.decisions} decisions")
    print("\n".join(f"  {name:<20}{value:>10}" for name, value in figures.items()))
    if options.json:
        print(json.dumps(figures))
    return 0


def _formula(context: LlamaContext, path: Path) -> int:
    model, cells = context.model, context.shape.cells
    head = llama_cpp.llama_model_n_embd(model) // llama_cpp.llama_model_n_head(model)
    per_cell = 2 * llama_cpp.llama_model_n_layer(model) * head * 2
    kv = per_cell * llama_cpp.llama_model_n_head_kv(model) * cells
    outputs = max(context.shape.batch, context.shape.sequences) * context.vocab_size * 4
    return int(path.stat().st_size + kv + outputs)


def _tick(engine: Engine, number: int) -> None:
    rng = random.Random(number)
    tokens = engine.vocabulary.tokens
    which = number // TICK % TEMPLATES
    shared = tokens(f"House {which}. You decide what one employee does next. Answer shortly.\n")
    ends = tuple(tuple(tokens(f" {label}")) for label in LABELS)
    trie = build_trie(ends, engine.vocabulary.end_of_turn)
    jobs = [
        ChoiceJob((*shared, *tokens(f"{rng.randint(0, 999)} tasks. Answer:")), len(shared),
                  trie=trie)
        for _ in range(TICK)
    ]  # fmt: skip
    engine.submit(jobs)
    for job in jobs:
        job.future.result()


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    sys.exit(main())
