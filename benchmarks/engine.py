"""A tick of fifty choices: the engine beside llama-cpp-python's own API and llama.cpp's server.

Fifty prompts of about 440 shared and 40 own tokens, one label of six each. A cold tick has a
shared part that nobody has computed, a warm one follows it with other own parts. Each contestant
runs in a process of its own, one after another, with the same weights and threads.

(a) ``sequential``: ``Llama.create_completion`` for one token, nothing kept between prompts;
(b) ``prefix_reuse``: the same, with the library's reuse of the last prompt's beginning;
(c) ``llama_server``: llama.cpp's server in process (package xllamacpp), 8 slots, continuous
batching; (d) ``engine``. The floor is the rate at which own tokens alone could be computed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine_contestants import CONTESTANTS, Setup
from cli.output import say
from config.settings import load_settings
from workers.gpus import physical_cores
from workers.models import weights_path

PROFILES = {"smollm2-135m": "tiny", "qwen2.5-coder-1.5b": "laptop"}
ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it."""
    options = _options(arguments)
    setup = _setup(options)
    if options.contestant:
        print(json.dumps(CONTESTANTS[options.contestant](setup)))
        return 0
    found = {name: _run(name, options) for name in CONTESTANTS if name in options.only}
    print(_table(found, setup))
    if options.json:
        print(json.dumps(_figures(found)))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", choices=sorted(PROFILES))
    parser.add_argument("--file", type=Path, help="weights to use instead of the prepared ones")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--contestant", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def _setup(options: argparse.Namespace) -> Setup:
    settings = load_settings(profile=PROFILES[options.model])
    return Setup(
        path=options.file or weights_path(settings, options.model),
        threads=options.threads,
        repeats=options.repeats,
        prompts=options.prompts,
        gpu_layers=-1 if options.device == "cuda" else 0,
    )


def _run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    say(f"{name} ...")
    command = [sys.executable, "-m", "benchmarks.engine", "--contestant", name,
               "--model", options.model, "--repeats", str(options.repeats),
               "--prompts", str(options.prompts), "--threads", str(options.threads),
               "--device", options.device]  # fmt: skip
    if options.file:
        command += ["--file", str(options.file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _figures(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    figures = {
        key: statistics.median(rates)
        for one in found.values()
        for key, rates in one["decisions_per_s"].items()
    }
    if {"sequential", "engine"} <= found.keys():
        pairs = list(zip(found["sequential"]["labels"], found["engine"]["labels"], strict=True))
        figures["agreement"] = sum(a == b for a, b in pairs) / len(pairs)
    return figures


def _table(found: dict[str, dict[str, Any]], setup: Setup) -> str:
    lines = [
        f"{setup.path.name}, {setup.threads} threads, {setup.prompts} prompts, "
        f"{setup.repeats} repeats, decisions/s: median (least to most)"
    ]
    for one in found.values():
        for key, rates in one["decisions_per_s"].items():
            spread = f"{min(rates):.1f} to {max(rates):.1f}"
            lines.append(f"  {key:<20}{statistics.median(rates):8.1f}  ({spread})")
    figures = _figures(found)
    ratios = (
        ("engine cold / sequential", "engine_cold", "sequential"),
        ("engine cold / server cold", "engine_cold", "llama_server_cold"),
        ("engine warm / floor", "engine_warm", "floor"),
    )
    lines += [
        f"  {title:<28}{figures[over] / figures[under]:6.2f}"
        for title, over, under in ratios
        if over in figures and under in figures
    ]
    if "agreement" in figures:
        lines.append(f"  same label as sequential    {100 * figures['agreement']:6.1f} %")
        lines += _disagreements(found)
    return "\n".join(lines)


def _disagreements(found: dict[str, dict[str, Any]]) -> list[str]:
    """Each choice on which the engine differs, with how close its two best labels are."""
    engine, peer = found["engine"], found["sequential"]["labels"]
    rows = zip(peer, engine["labels"], engine["margins"], strict=True)
    return [
        f"    {theirs} against {ours}: {margin:.3f} nats between the engine's two best"
        for theirs, ours, margin in rows
        if theirs != ours
    ]


if __name__ == "__main__":
    sys.exit(main())
