"""Placement: which GPU or how many CPU threads each worker gets, decided before any starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from config.catalog import IN_PROCESS, BackendName, Catalog, Lane, Model
from config.errors import ConfigurationError

LISTING = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
LISTING_TIMEOUT_S = 20
OVERHEAD_MB = 500
"""What a process takes on a card beside weights and cache: CUDA context 300, workspace 200."""
UNKNOWN_MB = 1_000_000_000
"""The room on a card that does not tell its memory: whatever is asked for."""


@dataclass(frozen=True)
class Gpu:
    """A card, by the name that ``CUDA_VISIBLE_DEVICES`` takes; memory is ``None`` if unknown."""

    name: str
    uuid: str = ""
    memory_mb: int | None = None


@dataclass(frozen=True)
class Placement:
    """Where a worker runs. ``gpu`` is ``None`` on the CPU."""

    gpu: str | None = None
    threads: int = 1
    hides_gpus: bool = False

    def environment(self) -> dict[str, str]:
        """The variables that pin a process; they must be set before it starts."""
        pins = {"UPTIER_THREADS": str(self.threads), "OMP_NUM_THREADS": str(self.threads)}
        if self.gpu is not None:
            # By bus, as nvidia-smi counts; CUDA alone would count the fastest card first.
            pins |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": self.gpu}
        elif self.hides_gpus:
            pins["CUDA_VISIBLE_DEVICES"] = ""
        return pins

    def __str__(self) -> str:
        if self.gpu is not None:
            return f"GPU {self.gpu}"
        return f"CPU, {self.threads} thread{'s' if self.threads > 1 else ''}"


def detect_gpus(environ: Mapping[str, str] | None = None) -> tuple[Gpu, ...] | None:
    """The NVIDIA cards that this process may use, in order; ``None`` if that is not known.

    ``CUDA_VISIBLE_DEVICES`` chooses and orders them, as it does for every CUDA program.
    """
    env = os.environ if environ is None else environ
    return visible(_listed(), env.get("CUDA_VISIBLE_DEVICES"))


def parse_listing(listing: str) -> tuple[Gpu, ...]:
    """The cards of an nvidia-smi listing of index, uuid and memory in MB."""
    gpus = []
    for line in listing.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and fields[0].isdigit():
            memory = int(fields[2]) if fields[2].isdigit() else None
            gpus.append(Gpu(name=fields[0], uuid=fields[1], memory_mb=memory))
    return tuple(gpus)


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


def place(
    catalog: Catalog, gpus: Sequence[Gpu] | None, cores: int
) -> dict[tuple[str, int], Placement]:
    """A placement for every worker, by lane and number from 1.

    A lane with ``gpu = n`` is pinned to the n-th card from 0; other models that run inside their
    worker go to the card with the most room, or to the CPU where they fit on none.

    Raises:
        ConfigurationError: a lane names a card that is not here or has no room; tells the sum.
    """
    board = _Board(gpus)
    placed: dict[tuple[str, int], Placement] = {}
    for name, number, lane, model in _hungriest_first(catalog):
        threads = (lane.threads or cores) if model.backend in IN_PROCESS else 1
        gpu = board.seat(name, lane, model) if _wants_gpu(model) else None
        placed[name, number] = Placement(gpu, threads, hides_gpus=bool(gpus))
    return placed


class _Board:
    """Which worker sits on which card, and the room that is left."""

    def __init__(self, gpus: Sequence[Gpu] | None) -> None:
        self.gpus = gpus
        self.seated: list[list[tuple[str, int]]] = [[] for _ in gpus or ()]

    def seat(self, name: str, lane: Lane, model: Model) -> str | None:
        """The card for a worker of the lane; ``None`` is the CPU."""
        if self.gpus is None:  # the catalog's word stands, and CUDA has the last one
            return None if lane.gpu is None else str(lane.gpu)
        if not self.gpus:
            return None
        need = _need_mb(model)
        index = lane.gpu
        if index is None:
            index = max(range(len(self.gpus)), key=self._room)
            if self._room(index) < need:
                return None
        elif index >= len(self.gpus):
            raise ConfigurationError(
                f"lanes.{name}.gpu = {index}, but this machine shows {len(self.gpus)} GPUs, "
                "counted from 0: choose one of them or leave gpu out"
            )
        self.seated[index].append((name, need))
        if self._room(index) < 0:
            raise ConfigurationError(self._overfull(index))
        return self.gpus[index].name

    def _room(self, index: int) -> int:
        memory = (self.gpus or ())[index].memory_mb
        return (UNKNOWN_MB if memory is None else memory) - self._needed(index)

    def _needed(self, index: int) -> int:
        return sum(need for _, need in self.seated[index])

    def _overfull(self, index: int) -> str:
        terms = " + ".join(f"{name} {need}" for name, need in self.seated[index])
        return (
            f"GPU {index} has {(self.gpus or ())[index].memory_mb} MB, but its workers need "
            f"{terms} = {self._needed(index)} MB: move a lane to another GPU, lower its workers, "
            "or choose a smaller model"
        )


def _listed() -> tuple[Gpu, ...] | None:
    try:
        listing = subprocess.run(
            LISTING, capture_output=True, text=True, timeout=LISTING_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_listing(listing)


def _named(gpus: Sequence[Gpu] | None, name: str) -> Gpu | None:
    if gpus is None:
        return Gpu(name) if name and name != "-1" else None
    return next((g for g in gpus if name and (g.name == name or g.uuid.startswith(name))), None)


def _hungriest_first(catalog: Catalog) -> list[tuple[str, int, Lane, Model]]:
    # Lanes that name their card come first, so that those which do not fill what is left.
    workers = [
        (name, number, lane, catalog.models[lane.model])
        for name, lane in catalog.lanes.items()
        for number in range(1, lane.workers + 1)
    ]
    return sorted(workers, key=lambda worker: (worker[2].gpu is None, -_need_mb(worker[3])))


def _wants_gpu(model: Model) -> bool:
    scripted = model.backend is BackendName.SCRIPTED  # in process, and nothing to load
    return model.backend in IN_PROCESS and not scripted and model.gpu_layers != 0


def _need_mb(model: Model) -> int:
    # What a model takes that puts only some of its layers on the card is not known here.
    return (model.vram_mb or 0) + OVERHEAD_MB if model.gpu_layers < 0 else OVERHEAD_MB
