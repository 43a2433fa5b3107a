"""What the gateway bears: clients that ask one question after the other, for a minute.

A scripted model that answers at once, SQLite, the embedded Valkey. Where ``--litellm`` names the
program of a LiteLLM proxy, that is measured by the same clients in the same run, in front of a
server that answers at once; it forwards each request, where Uptier keeps, answers, checks and
settles each as a decision.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gateway_load import load
from cli.output import say
from config.gateway import KEY_VARIABLE, new_key
from workers.valkey import free_port

HERE = Path(__file__).parent
START_S = 120
WARM_S = 3
MIB = 1 << 20
KEY = new_key()
"""The one key of both."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it."""
    options = _options(arguments)
    found = {"uptier": _measured(uptier, options)}
    say(f"uptier {json.dumps(found['uptier'])}")
    if options.litellm is not None:
        found["litellm"] = _measured(lambda folder: litellm(folder, options.litellm), options)
    if options.json:
        print(json.dumps({"machine": _machine(), "clients": options.clients,
                          "seconds": options.seconds, **found}))  # fmt: skip
    else:
        _show(options, found)
    return 0 if all(one["errors"] == 0 for one in found.values()) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64, help="at once")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--stream", action="store_true", help="ask for streams")
    parser.add_argument("--litellm", type=Path, help="program of a LiteLLM proxy to measure beside")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def _measured(serving: Any, options: argparse.Namespace) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="uptier-bench-") as folder,
        serving(Path(folder)) as (port, process),
    ):
        asyncio.run(load(port, KEY, options.clients, WARM_S, options.stream))
        before = _memory(process)
        said = asyncio.run(load(port, KEY, options.clients, options.seconds, options.stream))
        after = _memory(process)
    return {
        "requests": said.requests, "errors": said.errors, "per_s": round(said.per_s, 1),
        "p50_ms": round(said.quantile(0.5), 1), "p95_ms": round(said.quantile(0.95), 1),
        "p99_ms": round(said.quantile(0.99), 1),
        "mib_before": round(before / MIB, 1), "mib_after": round(after / MIB, 1),
    }  # fmt: skip


@contextmanager
def uptier(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A gateway with a stack of its own."""
    command = [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--profile",
               str(HERE / "scripted.toml")]  # fmt: skip
    environment = {"UPTIER_DATA_DIR": str(folder), "UPTIER_LOG_LEVEL": "WARNING",
                   KEY_VARIABLE: KEY}  # fmt: skip
    log = folder / "said"
    with _program(command, environment, log) as process:
        address = re.compile(r"http://\S+:(\d+)/v1")
        port = _awaited(process, log, lambda: address.search(log.read_text()))
        yield int(port.group(1)), psutil.Process(process.pid)


@contextmanager
def litellm(folder: Path, program: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A LiteLLM proxy with one worker, in front of a server that answers at once."""
    upstream, port = free_port(), free_port()
    config = folder / "config.yaml"
    config.write_text(json.dumps({"model_list": [{"model_name": "auto", "litellm_params": {
        "model": "openai/auto", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none",
    }}]}))  # fmt: skip
    answering = [sys.executable, "-m", "benchmarks.gateway_load", str(upstream)]
    command = [str(program), "--config", str(config), "--port", str(port), "--host", "127.0.0.1",
               "--num_workers", "1", "--telemetry", "False"]  # fmt: skip
    alone = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONPATH": "",
             "LITELLM_MASTER_KEY": KEY}  # fmt: skip
    with (
        _program(answering, {}, folder / "upstream"),
        _program(command, alone, folder / "said") as process,
    ):
        _awaited(process, folder / "said", lambda: _listens(port))
        yield port, psutil.Process(process.pid)


@contextmanager
def _program(
    command: list[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                                   env={**os.environ, **environment})  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _awaited(process: subprocess.Popen[bytes], log: Path, found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if result := found():
            return result
        time.sleep(0.2)
    said = log.read_text(errors="replace").strip().splitlines()[-10:]
    raise SystemExit("\n".join([*said, f"{process.args!r} did not begin to serve"]))


def _listens(port: int) -> bool:
    return any(c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN
               for c in psutil.net_connections("tcp"))  # fmt: skip


def _memory(process: psutil.Process) -> int:
    """Bytes of the process itself; Uptier's workers are their own, as any model server would be."""
    return int(process.memory_info().rss)


def _machine() -> str:
    return f"{platform.machine()}, {psutil.cpu_count(logical=False)} cores"


def _show(options: argparse.Namespace, found: dict[str, dict[str, Any]]) -> None:
    say(f"{_machine()}; {options.clients} clients for {options.seconds:g} s")
    print("| | requests/s | p50 ms | p95 ms | p99 ms | errors | MiB before, after |")
    print("|---|---|---|---|---|---|---|")
    for name, one in found.items():
        times = " | ".join(str(one[name]) for name in ("per_s", "p50_ms", "p95_ms", "p99_ms"))
        memory = f"{one['mib_before']}, {one['mib_after']}"
        print(f"| {name} | {times} | {one['errors']} of {one['requests']} | {memory} |")
    if "litellm" in found:
        print(f"ratio of requests/s: {found['uptier']['per_s'] / found['litellm']['per_s']:.2f}")


if __name__ == "__main__":
    sys.exit(main())
