"""The machine: cards and their driver, memory, disk, compiler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import psutil

from config.catalog import IN_PROCESS, BackendName, Model
from config.errors import ConfigurationError, WeightsError
from config.settings import Settings
from workers.doctor.finding import Finding, failure, warning, well
from workers.gpus import MIB, Gpu, detect_gpus, usable_memory_mb
from workers.models import original_path, select, weights_of
from workers.needs import lane_needs
from workers.placement import place
from workers.plan_view import hardware_here

MB = 1_000_000
GB = 1_000_000_000
BYTES_PER_PARAMETER = 0.6
"""Of a model at four bits with its scales, where the catalog does not say how large the file is."""
LEDGER_BYTES = 2 * GB
"""For the ledger, logs and prepared formats beside the weights."""
COMPILERS = ("c++", "g++", "clang++")
DRIVER = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
DRIVER_TIMEOUT_S = 20
LOADING = (ImportError, OSError, RuntimeError)
"""What comes of a llama.cpp that is not there, or whose libraries (CUDA's, say) are not."""


def machine(settings: Settings) -> list[Finding]:
    """What the machine has, beside what the profile asks of it."""
    gpus = detect_gpus()
    room = [*_placement(settings, gpus), _memory(settings, gpus), *_disks(settings)]
    return [*_cards(settings, gpus), *room, _compiler()]


def _cards(settings: Settings, gpus: Sequence[Gpu] | None) -> list[Finding]:
    pinned = [name for name, lane in settings.catalog.lanes.items() if lane.gpu is not None]
    if not gpus:
        if pinned:
            said = f"no NVIDIA card is seen, and lanes {', '.join(pinned)} are pinned to one"
            return [warning("GPU", said, "install the driver (`nvidia-smi` must list the card), or "
                            "drop gpu from these lanes: they run on the processor")]  # fmt: skip
        return [well("GPU", "no NVIDIA card is seen: models run on the processor")]
    cards = ", ".join(_card(gpu) for gpu in gpus)
    found = [well("GPU", cards), _driver()]
    models = [settings.catalog.models[lane.model] for lane in settings.catalog.lanes.values()]
    if any(m.backend is BackendName.LLAMA_CPP for m in models):
        found += _offloading()
    return found


def _offloading() -> list[Finding]:
    mend = "compile it for the card: docs/gpu.md has the command"
    try:
        offloads = _offloads()
    except LOADING as error:
        first = str(error).partition("\n")[0]
        return [failure("llama.cpp", f"it does not load: {first}", mend)]
    idle = "it was compiled without CUDA: cards stay idle"
    return [] if offloads else [warning("llama.cpp", idle, mend)]


def _card(gpu: Gpu) -> str:
    room = "memory unknown" if gpu.memory_mb is None else f"{gpu.memory_mb:,} MB"
    return f"{gpu.name}: {room}"


def _driver() -> Finding:
    try:
        listing = subprocess.run(
            DRIVER, capture_output=True, text=True, timeout=DRIVER_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = f"nvidia-smi does not answer ({type(error).__name__})"
        return warning("driver", said, "see that `nvidia-smi` runs; the card may have to be reset")
    return well("driver", ", ".join(sorted(set(listing.split()))) or "unknown")


def _offloads() -> bool:
    # Imported here: it loads llama.cpp, which only a machine with a card need be asked about.
    import llama_cpp

    return bool(llama_cpp.llama_supports_gpu_offload())


def _placement(settings: Settings, gpus: Sequence[Gpu] | None) -> list[Finding]:
    """Whether every worker has its place on cards and ports; without it a stack starts nothing."""
    try:
        needs = lane_needs(settings, prepared=False) if gpus else {}
        place(settings.catalog, hardware_here(settings), needs)
    except (WeightsError, *LOADING):
        return []  # the line of the weights, or of llama.cpp, tells
    except ConfigurationError as error:
        said, _, mend = str(error).rpartition(": ")
        # With a broker of its own the lane may be served by another machine.
        tell = failure if settings.broker_url is None else warning
        return [tell("placement", said, mend)]
    told = well("placement", "every worker has its place: `uptier fleet plan` shows it")
    return [told] if gpus else []


def _memory(settings: Settings, gpus: Sequence[Gpu] | None) -> Finding:
    memory = psutil.virtual_memory()
    total = usable_memory_mb() * MIB
    free = min(memory.available, total)
    has = f"{total / GB:.1f} GB, {free / GB:.1f} GB of it free"
    if gpus:
        return well("memory", f"{has}; models go to the cards")
    needs = {name: bytes_in_memory(settings, name) for name in _in_process(settings)}
    workers = settings.catalog.lanes.values()
    need = sum(needs.get(lane.model, 0) * lane.workers for lane in workers)
    said = f"{has}; the models of profile {settings.profile} take about {need / GB:.1f} GB"
    mend = "choose a smaller profile or fewer workers (`uptier models list` has the sizes)"
    if need > total:
        return failure("memory", said, mend)
    if need > free:
        return warning("memory", said, f"end other programs, or {mend}")
    return well("memory", said)


def _in_process(settings: Settings) -> list[str]:
    catalog = settings.catalog
    used = dict.fromkeys(lane.model for lane in catalog.lanes.values())
    return [name for name in used if catalog.models[name].backend in IN_PROCESS]


def bytes_in_memory(settings: Settings, name: str) -> int:
    """About how much a worker of a model takes: its weights, or the catalog's estimate if more."""
    model = settings.catalog.models[name]
    return max(_file_bytes(model), (model.vram_mb or 0) * MB)


def _file_bytes(model: Model) -> int:
    if model.weights is not None and model.weights.size is not None:
        return model.weights.size
    return int((model.parameters_b or 0) * GB * BYTES_PER_PARAMETER)


def _disks(settings: Settings) -> list[Finding]:
    to_fetch = sum(_still_to_fetch(settings, name) for name in select(settings))
    wanted = {settings.models_dir: to_fetch, settings.data_dir: LEDGER_BYTES}
    places = {"weights": settings.models_dir, "data": settings.data_dir}
    return [_disk(f"disk of {what}", path, wanted[path]) for what, path in places.items()]


def _still_to_fetch(settings: Settings, name: str) -> int:
    try:
        there = original_path(settings, name).exists()
    except WeightsError:
        return 0  # the line of the weights tells
    has_source = weights_of(settings, name).source.kind != "file"
    return 0 if there or not has_source else _file_bytes(settings.catalog.models[name])


def _disk(name: str, path: Path, need: int) -> Finding:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / GB:.1f} GB free at {there}"
    if free < need:
        short = f"{said}, {need / GB:.1f} GB are needed"
        setting = "UPTIER_MODELS_DIR" if "weights" in name else "UPTIER_DATA_DIR"
        return failure(name, short, f"make room, or set {setting} to another disk")
    return well(name, said if need in (0, LEDGER_BYTES) else f"{said}, {need / GB:.1f} GB to fetch")


def _compiler() -> Finding:
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    built = find_spec("llama_cpp") is not None
    if found is not None:
        return well("compiler", found)
    if built:
        return well("compiler", "none, and none is needed: llama.cpp is there")
    mend = "install one (Debian: apt install build-essential), then run `make install`"
    return failure("compiler", "there is no C++ compiler, and llama.cpp is not built", mend)
