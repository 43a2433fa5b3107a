"""A worker as it is, but for traps: where one is set, the process that reaches it dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cli.main
from config.settings import load_settings
from ledger import lifecycle
from workers.answering import Answerer
from workers.launch import WorkerSpec

VISIBILITY_S = 6.0
"""Far below the product's 900 s, so that the broker delivers again within a scene."""


class Traps:
    """Files of which each kills one process, whichever comes first to the point it names."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = data_dir / "traps"
        self._directory.mkdir(exist_ok=True)

    def arm(self, point: str) -> None:
        """Set a trap."""
        (self._directory / point).touch()

    def armed(self, point: str) -> bool:
        """Whether nobody has come to it yet."""
        return (self._directory / point).exists()

    def disarm(self, point: str) -> None:
        """Take a trap away."""
        (self._directory / point).unlink(missing_ok=True)

    def spring(self, point: str) -> None:
        """Die here if a trap is set."""
        try:
            (self._directory / point).unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def worker_command(spec: WorkerSpec) -> list[str]:
    """The command line of a worker with traps."""
    return [sys.executable, "-m", "tests.faults.faulty_worker", spec.lane]


def main() -> None:
    """Set the points where traps may lie, and serve."""
    settings = load_settings()
    traps = Traps(settings.data_dir)
    _around(lifecycle, "record", traps, before="recording", after="recorded")
    _around(lifecycle, "rule", traps, before="ruling", after="ruled")
    _around(Answerer, "answer", traps, before="delivered", after="unacknowledged")
    if sys.argv[1] in settings.catalog.lanes and settings.catalog.lane_model(sys.argv[1]).provider:
        # Imported here: it takes a second of each start, and the other lanes do without.
        from anthropic.resources.messages import Messages

        _around(Messages, "create", traps, before="calling", after="replied")
    _hurry_broker()
    sys.argv = ["uptier", "worker", *sys.argv[1:]]
    cli.main.main()


def _hurry_broker() -> None:
    found = [m for m in list(sys.modules.values()) if hasattr(m, "VISIBILITY_TIMEOUT_S")]
    if not found:
        raise AssertionError("the visibility timeout has another name now: correct this test")
    for module in found:
        vars(module)["VISIBILITY_TIMEOUT_S"] = VISIBILITY_S


def _around(owner: Any, name: str, traps: Traps, *, before: str, after: str) -> None:
    whole: Callable[..., Any] = getattr(owner, name)

    def wrapped(*given: Any, **named: Any) -> Any:
        traps.spring(before)
        result = whole(*given, **named)
        traps.spring(after)
        return result

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    main()
