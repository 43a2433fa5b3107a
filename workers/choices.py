"""The format that ``uptier models prepare`` chose for each model, remembered per machine."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil
from filelock import FileLock

from config.catalog import Strict
from workers.verified import read_state, write_state

ORIGINAL = "original"  # the file as it comes
PREPARED = "prepared"
CHOICES = "choices.json"


class Candidate(Strict):
    """A format as it was measured; speeds in tokens/s on the CPU.

    ``agreement`` is the share of built-in prompts with the original's most likely next token,
    ``divergence`` the mean KL divergence of the next token from the original's, in nats.
    ``seconds`` is the time of a typical decision. ``fault`` says why a format has no figures.
    """

    format: str
    prefill: float = 0.0
    decode: float = 0.0
    agreement: float = 0.0
    divergence: float = 0.0
    seconds: float = 0.0
    faithful: bool = False
    share: float = 1.0
    """The least share of its threads' time that the measurement got."""
    fault: str | None = None


class Choice(Strict):
    """What a worker on this machine loads: ``file`` in the prepared directory, or the original."""

    format: str = ORIGINAL
    file: str | None = None
    sha256: str | None = None
    asked: tuple[str, ...] = ()
    """The catalog's formats at the time; other ones are measured anew."""
    candidates: tuple[Candidate, ...] = ()
    reason: str = ""


class Choices(Strict):
    """What ``choices.json`` holds: per machine, then per model and its hash."""

    machines: dict[str, dict[str, Choice]] = {}


def remembered(models_dir: Path, model: str, sha256: str) -> Choice | None:
    """The choice made on this machine for a model whose weights have that hash."""
    choices = read_state(_path(models_dir), Choices)
    return choices.machines.get(machine_key(), {}).get(_key(model, sha256))


def remember(models_dir: Path, model: str, sha256: str, choice: Choice) -> None:
    """Notes a choice for this machine."""
    path = _path(models_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{CHOICES}.lock")):
        machines = dict(read_state(path, Choices).machines)
        here = {**machines.get(machine_key(), {}), _key(model, sha256): choice}
        write_state(path, Choices(machines={**machines, machine_key(): here}))


def files_in_use(models_dir: Path) -> set[str]:
    """The prepared files that a choice of any machine names."""
    machines = read_state(_path(models_dir), Choices).machines
    return {c.file for chosen in machines.values() for c in chosen.values() if c.file}


def physical_cores() -> int:
    """The cores this process may use; a second thread on a core does not speed up llama.cpp."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(psutil.cpu_count(logical=False) or 1, allowed or 1))


@cache
def machine_key() -> str:
    """Names what a measurement depends on: the CPU, its cores, and llama.cpp as it was built."""
    model, flags = _cpu()
    digest = hashlib.sha256(f"{flags}|{_build()}".encode()).hexdigest()[:12]
    return f"{model} | {physical_cores()} cores | llama.cpp {_llama_version()} | {digest}"


def _cpu() -> tuple[str, str]:
    fields: dict[str, str] = {}
    try:
        # Only the first processor's block: the others differ in their clock rate alone.
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    except OSError:
        pass
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, fields.get("flags") or fields.get("Features") or platform.machine()


def _llama_version() -> str:
    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:
        return "none"


def _build() -> str:
    """The libraries' names and sizes: a build with a GPU or other flags has other ones."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return ""
    libraries = sorted((Path(spec.origin).parent / "lib").glob("*"))
    return ",".join(f"{path.name}:{path.stat().st_size}" for path in libraries)


def _path(models_dir: Path) -> Path:
    return models_dir / PREPARED / CHOICES


def _key(model: str, sha256: str) -> str:
    return f"{model}:{sha256}"
