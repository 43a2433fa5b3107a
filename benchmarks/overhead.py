"""What Uptier costs beside raw Celery: decisions per second, latency of one, memory over many.

A scripted model that answers at once, SQLite, the embedded Valkey, one process each for client,
answering and checking; raw Celery no-op tasks on the same Valkey in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks.overhead_watched import FEWEST_PAIRS, table, watched
from cli.output import say
from cli.session import Session, session
from config.settings import Settings, load_settings
from routing.decision import CacheScope, ChoiceOutput, Decision

HERE = Path(__file__).parent
LABELS = ChoiceOutput(labels=("CONTINUE", "SWITCH", "IDLE"))
IN_FLIGHT = 1_000
"""Decisions submitted ahead of the workers; more only lengthens the queue."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it."""
    options = _options(arguments)
    if options.watched:
        return _watched(options)
    with tempfile.TemporaryDirectory(prefix="uptier-bench-") as folder:
        settings = load_settings(
            profile=str(HERE / "scripted.toml"), data_dir=Path(folder), log_level="WARNING"
        )
        with session(settings, mode="bench", cache=CacheScope.OFF) as live:
            figures = _measure(live, options)
    print(_table(figures))
    if options.json:
        print(json.dumps(figures))
    return 0


def _watched(options: argparse.Namespace) -> int:
    if options.watched < FEWEST_PAIRS:
        print(f"--watched {options.watched}: no bounds of 95 % follow from fewer than "
              f"{FEWEST_PAIRS} pairs; name more", file=sys.stderr)  # fmt: skip
        return 2
    asked = _Asked()
    with tempfile.TemporaryDirectory(prefix="uptier-bench-") as folder:
        figures = watched(
            Path(folder), str(HERE / "scripted.toml"),
            lambda live, count, size: _rate(live, asked, count, size),
            options.watched, {50: options.decisions, 1: options.singles},
        )  # fmt: skip
    print(json.dumps(figures) if options.json else table(figures))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=2_000, help="no-op tasks a repeat")
    parser.add_argument("--decisions", type=int, default=5_000, help="decisions a repeat, at 50")
    parser.add_argument("--singles", type=int, default=500, help="decisions a repeat, at 1")
    parser.add_argument("--soak", type=int, default=0, help="decisions to watch memory over")
    watch = "instead: what metrics and events cost, over so many pairs of turns"
    parser.add_argument("--watched", type=int, default=0, metavar="PAIRS", help=watch)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def _measure(live: Session, options: argparse.Namespace) -> dict[str, Any]:
    broker = _broker_url(live.settings)
    asked = _Asked()
    _rate(live, asked, 200, 50)  # everything warm
    noop, many, single = [], [], []
    with _noop_worker(broker) as client:
        for number in range(options.repeats):
            say(f"repeat {number + 1} of {options.repeats}")
            noop.append(_noop_rate(client, options.tasks))
            many.append(_rate(live, asked, options.decisions, 50))
            single.append(_rate(live, asked, options.singles, 1))
    latencies = sorted(_latency_ms(live, asked) for _ in range(300))
    figures: dict[str, Any] = {
        "machine": f"{platform.machine()}, {psutil.cpu_count(logical=False)} cores",
        "python": platform.python_version(),
        "repeats": options.repeats,
        "celery_noop_per_s": _spread(noop),
        "decisions_per_s_at_50": _spread(many),
        "decisions_per_s_at_1": _spread(single),
        "ratio_at_50": statistics.median(many) / statistics.median(noop),
        "ratio_at_1": statistics.median(single) / statistics.median(noop),
        "latency_ms": {"p50": latencies[150], "p95": latencies[285]},
    }
    if options.soak:
        figures["memory_mb"] = _soak(live, asked, options.soak)
    return figures


class _Asked:
    """Numbers decisions, so that no two have the same key."""

    def __init__(self) -> None:
        self.count = 0

    def some(self, count: int) -> list[Decision]:
        """New decisions."""
        start, self.count = self.count, self.count + count
        return [
            Decision(
                kind="next_action",
                prompt=f"Task 12, {n} of 4000 steps done. Queue: 2. Blocker: none. What next?",
                system="You choose an engineer's next action. " * 10,
                output=LABELS,
                key=f"bench-{n}",
                seed=n,
            )
            for n in range(start, self.count)
        ]


def _rate(live: Session, asked: _Asked, count: int, size: int) -> float:
    """Decisions settled a second, submitted ``size`` at a time."""
    start = time.perf_counter()
    flying: list[str] = []
    for done in range(0, count, size):
        flying += live.client.submit(asked.some(min(size, count - done)))
        if len(flying) >= IN_FLIGHT:
            live.client.wait(flying[: IN_FLIGHT // 2])
            flying = flying[IN_FLIGHT // 2 :]
    live.client.wait(flying)
    return count / (time.perf_counter() - start)


def _latency_ms(live: Session, asked: _Asked) -> float:
    start = time.perf_counter()
    live.client.gather(asked.some(1))
    return (time.perf_counter() - start) * 1000


def _soak(live: Session, asked: _Asked, count: int) -> dict[str, Any]:
    """Resident megabytes of client and workers after a tenth of the decisions, and after all."""
    _rate(live, asked, count // 10, 50)
    first = _resident_mb(live.settings)
    for part in range(9):
        say(f"soak: {(part + 1) * 10} % of {count} decisions")
        _rate(live, asked, count // 10, 50)
    last = _resident_mb(live.settings)
    return {name: {"after_10_percent": mb, "after_all": last[name]} for name, mb in first.items()}


def _resident_mb(settings: Settings) -> dict[str, float]:
    state = json.loads((settings.stack_dir / "stack.json").read_text())
    found = {"client": psutil.Process()}
    for worker in state["workers"]:
        process = psutil.Process(worker["process"]["pid"])
        found[worker["name"]] = process
        for number, child in enumerate(process.children()):
            found[f"{worker['name']} pool {number}"] = child
    return {name: round(p.memory_info().rss / 2**20, 1) for name, p in found.items()}


def _broker_url(settings: Settings) -> str:
    state = json.loads((settings.stack_dir / "stack.json").read_text())
    return str(state["broker_url"])


@contextmanager
def _noop_worker(broker_url: str) -> Iterator[redis.Redis]:
    environment = os.environ | {"NOOP_BROKER_URL": broker_url}
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.noop", "worker", "-P", "prefork",
               "-c", "1", "-l", "ERROR", "--without-gossip", "--without-mingle"]  # fmt: skip
    os.environ["NOOP_BROKER_URL"] = broker_url
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    client = redis.Redis.from_url(broker_url)
    try:
        _noop_rate(client, 50)
        yield client
    finally:
        process.terminate()
        process.wait(timeout=20)
        client.close()


def _noop_rate(client: redis.Redis, count: int) -> float:
    from benchmarks.noop import app, noop

    app.conf["broker_url"] = os.environ["NOOP_BROKER_URL"]
    start = time.perf_counter()
    for number in range(count):
        noop.delay(number)
    while client.llen("noop:celery") or client.hlen("noop:unacked"):
        time.sleep(0.002)
    return count / (time.perf_counter() - start)


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
    }


def _table(figures: dict[str, Any]) -> str:
    def line(name: str, key: str) -> str:
        f = figures[key]
        return f"{name:<42}{f['median']:>9,.0f}  ({f['least']:,.0f} to {f['most']:,.0f})"

    rows = [
        f"{figures['machine']}, Python {figures['python']}, medians of {figures['repeats']}",
        line("raw Celery, no-op tasks a second", "celery_noop_per_s"),
        line("Uptier, decisions a second, 50 a message", "decisions_per_s_at_50")
        + f"  ratio {figures['ratio_at_50']:.2f}",
        line("Uptier, decisions a second, 1 a message", "decisions_per_s_at_1")
        + f"  ratio {figures['ratio_at_1']:.2f}",
        f"latency of one decision: p50 {figures['latency_ms']['p50']:.1f} ms, "
        f"p95 {figures['latency_ms']['p95']:.1f} ms",
    ]
    for name, mb in figures.get("memory_mb", {}).items():
        rows.append(
            f"memory of {name}: {mb['after_10_percent']} MB after a tenth, {mb['after_all']} MB"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
