"""What a batch file costs: lines per second from the file to its results, beside the same decisions
through the client.

A scripted model that answers at once, SQLite, the embedded Valkey, one process each for the
command, answering and checking. The stack is warm; chat requests in OpenAI's format, one line each.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from cli.output import say
from cli.session import Session, session
from cli.waiting import wait_for_all
from config.settings import load_settings
from ledger.batches import outcomes
from ledger.clock import now
from ledger.runs import RunInfo, start_run
from producers.batch import CHUNK, result_of, submit_lines
from producers.batch_lines import Wanted, examine, numbered, read_line
from producers.client import Client
from routing.decision import Decision
from workers.stack_state import StackState

HERE = Path(__file__).parent
SYSTEM = "You word short notes of engineers. " * 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="uptier-bench-") as folder:
        settings = load_settings(
            profile=str(HERE / "scripted.toml"), data_dir=Path(folder), log_level="WARNING"
        )
        with session(settings, mode="bench") as live:
            figures = _measure(live, Path(folder), options)
    print(_table(figures))
    if options.json:
        print(json.dumps(figures))
    return 0


def _measure(live: Session, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    through_file, through_client, collected, first_pass = [], [], [], []
    _through_the_client(live, _written(folder, 200, -1))  # everything warm
    for number in range(options.repeats):
        say(f"repeat {number + 1} of {options.repeats}")
        path = _written(folder, options.lines, number)
        seconds, taken, read = _through_the_file(live, path)
        through_file.append(options.lines / seconds)
        collected.append(options.lines / taken)
        first_pass.append(options.lines / read)
        through_client.append(options.lines / _through_the_client(live, path))
    return {
        "machine": f"{platform.machine()}, {psutil.cpu_count(logical=False)} cores",
        "python": platform.python_version(),
        "lines": options.lines,
        "repeats": options.repeats,
        "batch_lines_per_s": _spread(through_file),
        "client_decisions_per_s": _spread(through_client),
        "ratio": statistics.median(through_file) / statistics.median(through_client),
        "lines_read_per_s": _spread(first_pass),
        "results_written_per_s": _spread(collected),
    }


def _written(folder: Path, lines: int, repeat: int) -> Path:
    path = folder / f"lines-{repeat}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            asked = f"Repeat {repeat}, part {number}: word a note to its reviewer."
            messages = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": asked},
            ]
            body = {"model": "auto", "messages": messages, "max_tokens": 60}
            line = {"custom_id": f"{repeat}-{number}", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line | {"method": "POST"}) + "\n")
    return path


def _through_the_file(live: Session, path: Path) -> tuple[float, float, float]:
    """Seconds from the file to the last settlement, of collecting, and of the first reading."""
    run = _run(live, "batch", path.stem)
    catalog = live.settings.catalog
    with _client(live, run) as client:
        start = time.perf_counter()
        found = examine(path)
        read = time.perf_counter() - start
        submit_lines(live.engine, run.id, found, catalog, Wanted(), client.submit)
        wait_for_all(live.engine, run.id, found.lines, live.failure)
        seconds = time.perf_counter() - start
    start = time.perf_counter()
    results = [json.dumps(result_of(one)) for one in outcomes(live.engine, run.id, catalog)]
    assert len(results) == found.lines
    return seconds, time.perf_counter() - start, read


def _through_the_client(live: Session, path: Path) -> float:
    """Seconds of the same decisions, ready made, submitted and waited for."""
    decisions: list[Decision] = []
    with path.open("rb") as file:
        for number, raw in numbered(file):
            one = read_line(number, raw, live.settings.catalog, Wanted()).decision
            assert one is not None
            decisions.append(one)
    with _client(live, _run(live, "bench", path.stem)) as client:
        start = time.perf_counter()
        ids: list[str] = []
        for place in range(0, len(decisions), CHUNK):
            ids += client.submit(decisions[place : place + CHUNK])
        client.wait(ids)
        return time.perf_counter() - start


def _run(live: Session, mode: str, name: str) -> RunInfo:
    profile = live.settings.profile
    return start_run(live.engine, mode=mode, profile=profile, now=now(), name=name)


def _client(live: Session, run: RunInfo) -> Client:
    state = StackState.read(live.settings.stack_dir)
    assert state is not None
    return Client(live.settings, state.broker_url, run, failure=live.failure)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _table(figures: dict[str, Any]) -> str:
    def line(name: str, values: dict[str, float]) -> str:
        low, high = values["min"], values["max"]
        return f"{name:<34}{values['median']:>9,.0f}/s  ({low:,.0f} to {high:,.0f})"

    return "\n".join(
        [
            f"{figures['machine']}, Python {figures['python']}, {figures['lines']:,} lines, "
            f"{figures['repeats']} repeats",
            line("file to last settlement", figures["batch_lines_per_s"]),
            line("the same through the client", figures["client_decisions_per_s"]),
            f"{'ratio':<34}{figures['ratio']:>9.2f}",
            line("first reading of the file", figures["lines_read_per_s"]),
            line("results collected", figures["results_written_per_s"]),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
