"""The hardware of a machine: cards, cores, memory; found here or described in a file."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import Field

from config.errors import ConfigurationError
from config.load import read_toml, validated
from config.weights import Strict
from workers.nvml import read_cards

MIB = 1 << 20
GB_MB = 1024
"""MB of a GB, as cards are sold and drivers count."""
MOST_GB = 100_000
"""What a described machine or card may have."""
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
THREADS = "UPTIER_THREADS"


@dataclass(frozen=True)
class Gpu:
    """A card, by the name that ``CUDA_VISIBLE_DEVICES`` takes; memory is ``None`` if unknown."""

    name: str
    uuid: str = ""
    memory_mb: int | None = None
    taken_mb: int = 0
    """In use by others."""
    product: str = ""


@dataclass(frozen=True)
class Hardware:
    """What workers may be placed on. ``gpus`` is ``None`` where nobody can tell."""

    gpus: tuple[Gpu, ...] | None
    cores: int
    memory_mb: int | None = None
    """The machine's own, ``None`` if unknown."""


class _GpuFile(Strict):
    memory_gb: float = Field(gt=0, le=MOST_GB)
    taken_gb: float = Field(default=0, ge=0, le=MOST_GB)
    product: str = ""


class _HardwareFile(Strict):
    cores: int = Field(default=8, ge=1, le=100_000)
    memory_gb: float | None = Field(default=None, gt=0, le=MOST_GB)
    gpus: tuple[_GpuFile, ...] = ()


def read_hardware(path: Path) -> Hardware:
    """The hardware that a TOML file describes: ``cores``, ``memory_gb`` and ``[[gpus]]``.

    Raises:
        ConfigurationError: unreadable, or a value in it is wrong; names it.
    """
    told = validated(_HardwareFile, read_toml(path), str(path))
    gpus = tuple(
        Gpu(
            str(number),
            memory_mb=round(gpu.memory_gb * GB_MB),
            taken_mb=round(gpu.taken_gb * GB_MB),
            product=gpu.product,
        )
        for number, gpu in enumerate(told.gpus)
    )
    memory = None if told.memory_gb is None else round(told.memory_gb * GB_MB)
    return Hardware(gpus, told.cores, memory)


def this_hardware(ours: Collection[int] = ()) -> Hardware:
    """This machine's, as far as this process may use it; what ``ours`` hold counts as free."""
    return Hardware(detect_gpus(ours=ours), physical_cores(), usable_memory_mb())


def detect_gpus(
    environ: Mapping[str, str] | None = None, ours: Collection[int] = ()
) -> tuple[Gpu, ...] | None:
    """The NVIDIA cards that this process may use, in order; ``None`` if that is not known.

    ``CUDA_VISIBLE_DEVICES`` chooses and orders them, as it does for every CUDA program.
    """
    env = os.environ if environ is None else environ
    cards = read_cards(ours)
    if cards is None:
        return visible(None, env.get("CUDA_VISIBLE_DEVICES"))
    found = [Gpu(c.name, c.uuid, c.memory_mb, c.taken_mb, c.product) for c in cards]
    return visible(found, env.get("CUDA_VISIBLE_DEVICES"))


def visible(gpus: Sequence[Gpu] | None, chosen: str | None) -> tuple[Gpu, ...] | None:
    """The cards that ``CUDA_VISIBLE_DEVICES`` leaves: by number or by the start of a uuid.

    Where there is no listing (``None``) its word stands; without either, nothing is known.
    """
    if chosen is None:
        return None if gpus is None else tuple(gpus)
    left: list[Gpu] = []
    for name in chosen.split(","):
        found = _named(gpus, name.strip())
        if found is None:
            break  # so does CUDA: an unknown name hides those that follow
        left.append(found)
    return tuple(left)


def physical_cores() -> int:
    """Physical cores that this process may use: more threads than that slow a model down."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, min(physical, allowed or physical))


def threads_asked(environ: Mapping[str, str] = os.environ) -> int:
    """The threads that ``UPTIER_THREADS`` asks for; 0 if it asks for none.

    Raises:
        ConfigurationError: it is no whole number.
    """
    asked = environ.get(THREADS, "").strip() or "0"
    if not (asked.isascii() and asked.isdecimal()):
        raise ConfigurationError(
            f"{THREADS} {asked!r} is not a whole number: set it to 1 or more, or leave it out"
        )
    return int(asked)


def usable_memory_mb() -> int:
    """The machine's memory, or the bound of the container around this process."""
    memory = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):  # no such group, or "max"
        memory = min(memory, int(CGROUP_MEMORY.read_text()))
    return memory // MIB


def _named(gpus: Sequence[Gpu] | None, name: str) -> Gpu | None:
    if gpus is None:
        return Gpu(name) if name and name != "-1" else None
    return next((g for g in gpus if name and (g.name == name or g.uuid.startswith(name))), None)
