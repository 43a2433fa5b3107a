"""A worker as it is, but for one fault: where a file asks for it, the engine's thread ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cli.main
from config.settings import Settings, load_settings
from workers.engine.context import LlamaContext
from workers.launch import WorkerSpec


def fault_of(settings: Settings) -> Path:
    """The file that asks for the fault; the worker removes it."""
    return settings.data_dir / "engine-fault"


def worker_command(spec: WorkerSpec) -> list[str]:
    """The command line of a worker that heeds the file."""
    return [sys.executable, "-m", "tests.integration.engine_worker", spec.lane]


def main() -> None:
    """Set the fault, and serve."""
    fault, decode = fault_of(load_settings()), LlamaContext.decode

    def faulty(self: LlamaContext, spans: Any) -> Any:
        if fault.exists():
            fault.unlink()
            raise RuntimeError("a fault that a test has put here")
        return decode(self, spans)

    LlamaContext.decode = faulty  # type: ignore[method-assign]
    sys.argv = ["uptier", "worker", *sys.argv[1:]]
    cli.main.main()


if __name__ == "__main__":
    main()
