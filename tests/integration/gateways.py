"""A gateway in a process of its own: real stack, real HTTP, scripted models."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from config.settings import Settings, load_settings
from tests.integration.stacks import wait_until

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "tests" / "profiles_gateway.toml"
START_S = 60


@dataclass
class Gateway:
    """A gateway that serves."""

    url: str
    run: str
    process: subprocess.Popen[str]
    settings: Settings
    said: list[str] = field(default_factory=list)

    def http(self, key: str | None = None, **more: Any) -> httpx2.Client:
        """A client without manners of its own."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60, **more)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Tell it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(data: Path, *options: str, profile: Path = PROFILE, **env: str) -> Iterator[Gateway]:
    """A gateway on a free port, with a stack of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--profile", str(profile),
         *options],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True,
        cwd=ROOT, env={**os.environ, "UPTIER_DATA_DIR": str(data), **env},
    )  # fmt: skip
    settings = load_settings(profile=str(profile), data_dir=data)
    found = Gateway("", "", process, settings)
    assert process.stderr is not None
    reader = threading.Thread(target=_read, args=(process.stderr, found.said))
    reader.start()
    try:
        wait_until(lambda: _serves(found) or process.poll() is not None, START_S)
        assert found.url, "\n".join(found.said)
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        reader.join()
        process.stderr.close()


def _read(stream: Any, said: list[str]) -> None:
    said.extend(iter(stream.readline, ""))


def _serves(gateway: Gateway) -> bool:
    match = re.search(r"on (http://\S+)/v1, run\s+(\w+)", " ".join(gateway.said))
    if match is None:
        return False
    gateway.url, gateway.run = match.groups()
    return True
