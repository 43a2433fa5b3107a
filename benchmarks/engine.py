"""A tick of fifty choices: the engine beside llama-cpp-python's own API and llama.cpp's server.

Fifty prompts of about 440 shared and 40 own tokens, one label of six each, of several tokens and
with shared beginnings. A cold tick has a shared part that nobody has computed, a warm one follows
it with other own parts. All compute the same, the probability of every label to its last token.
Each contestant runs in a process of its own, one after another, with the same weights and threads:

(a) ``sequential``: ``Llama.create_completion``, nothing kept between prompts; since a prompt takes
about a second, on the first ``--few`` prompts of each tick;
(b) ``prefix_reuse``: the same, with the library's reuse of the last prompt's beginning;
(c) ``llama_server``: llama.cpp's server in process (package xllamacpp), 8 slots, continuous
batching; (d) ``engine``. (a) and (b) run without and with flash attention, and the faster counts;
(c) and (d) leave that to llama.cpp, which takes it. The floor is the rate at which own tokens alone
could be computed, from nothing as in an ordinary prefill, and at depth, behind the shared tokens,
where they really are; labels' tokens come on top.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine_contestants import CONTESTANTS
from benchmarks.engine_ticks import LABELS, Setup
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
    parser.add_argument("--few", type=int, default=12, help="prompts of (a) in each tick")
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
        few=min(options.few, options.prompts),
        gpu_layers=-1 if options.device == "cuda" else 0,
    )


def _run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    say(f"{name} ...")
    command = [sys.executable, "-m", "benchmarks.engine", "--contestant", name,
               "--model", options.model, "--repeats", str(options.repeats),
               "--prompts", str(options.prompts), "--few", str(options.few),
               "--threads", str(options.threads), "--device", options.device]  # fmt: skip
    if options.file:
        command += ["--file", str(options.file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@dataclass(frozen=True)
class Pair:
    """One choice: its labels' log-probabilities by a peer and by the engine."""

    peer: list[float]
    engine: list[float]

    @property
    def agrees(self) -> bool:
        """Whether both have the same likeliest label."""
        return _best(self.peer) == _best(self.engine)

    @property
    def differences(self) -> list[float]:
        """How far the log-probabilities of each label lie apart, in nats."""
        both = zip(self.peer, self.engine, strict=True)
        return [abs(p - e) for p, e in both if math.isfinite(p)]


def _pairs(found: dict[str, dict[str, Any]], peer: str) -> list[Pair]:
    """The choices that both were asked; (a) was asked the first ones of each tick."""
    return [
        Pair(theirs, ours)
        for tick, engines in zip(found[peer]["logs"], found["engine"]["logs"], strict=True)
        for theirs, ours in zip(tick, engines, strict=False)
    ]


def _figures(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Medians in decisions/s, and agreement by peer; ``agreement`` is that with (a)."""
    figures = {
        key: statistics.median(rates)
        for one in found.values()
        for key, rates in one["decisions_per_s"].items()
    }
    peers = [name for name in found if name != "engine"] if "engine" in found else []
    for peer in peers:
        pairs = _pairs(found, peer)
        agreement = sum(pair.agrees for pair in pairs) / len(pairs)
        figures["agreement" if peer == "sequential" else f"agreement_{peer}"] = agreement
        if peer == "sequential":
            apart = [d for pair in pairs for d in pair.differences]
            figures["log_difference_median"] = statistics.median(apart)
            figures["log_difference_max"] = max(apart)
    return figures


def _table(found: dict[str, dict[str, Any]], setup: Setup) -> str:
    lines = [
        f"{setup.path.name}, {setup.threads} threads, {setup.prompts} prompts ({setup.few} for "
        f"sequential), {setup.repeats} repeats, decisions/s: median (least to most)"
    ]
    for one in found.values():
        for key, rates in one["decisions_per_s"].items():
            spread = f"{min(rates):.1f} to {max(rates):.1f}"
            better = "  the faster" if key == one.get("best") else ""
            lines.append(f"  {key:<20}{statistics.median(rates):8.2f}  ({spread}){better}")
    figures = _figures(found)
    ratios = (
        ("engine cold / sequential", "engine_cold", "sequential"),
        ("engine cold / server cold", "engine_cold", "llama_server_cold"),
        ("engine warm / floor", "engine_warm", "floor"),
        ("engine warm / floor at depth", "engine_warm", "floor_at_depth"),
    )
    lines += [
        f"  {title:<30}{figures[over] / figures[under]:6.2f}"
        for title, over, under in ratios
        if over in figures and under in figures
    ]
    if "engine" in found:
        lines += list(_answers(found["engine"]))
        for peer in [name for name in found if name != "engine"]:
            lines += list(_agreement(peer, _pairs(found, peer)))
    return "\n".join(lines)


def _answers(engine: dict[str, Any]) -> Iterator[str]:
    """How often each label was the answer, and what labels cost."""
    said = Counter(_best(logs) for tick in engine["logs"] for logs in tick)
    yield "  answers: " + ", ".join(f"{label} {count}" for label, count in said.most_common())
    yield f"  rows for the labels' inner tokens, a choice: {engine['rows']}"


def _agreement(peer: str, pairs: Sequence[Pair]) -> Iterator[str]:
    """How often a peer gives the engine's label, how far their figures lie apart, and each choice
    on which they differ, with how close the engine's two best labels are."""
    same = sum(pair.agrees for pair in pairs)
    apart = [d for pair in pairs for d in pair.differences]
    yield (
        f"  same label as {peer}: {same} of {len(pairs)} ({100 * same / len(pairs):.1f} %); "
        f"log-probabilities apart: median {statistics.median(apart):.4f}, most {max(apart):.4f}"
    )
    for pair in pairs:
        if not pair.agrees:
            first, second = sorted(pair.engine, reverse=True)[:2]
            yield (
                f"    {_best(pair.peer)} against {_best(pair.engine)}: {first - second:.3f} nats "
                "between the engine's two best"
            )


def _best(logs: Sequence[float]) -> str:
    return LABELS[max(range(len(logs)), key=lambda i: logs[i])]


if __name__ == "__main__":
    sys.exit(main())
