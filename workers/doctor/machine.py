"""The machine: cards and their driver, memory, compiler; its disks are in disk.py."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec

import psutil

from config.catalog import IN_PROCESS, BackendName
from config.errors import ConfigurationError, WeightsError
from config.settings import Settings
from workers.doctor.disk import GB, disks, file_bytes
from workers.doctor.finding import Finding, failure, warning, well
from workers.gpus import MIB, Gpu, detect_gpus, usable_memory_mb
from workers.needs import lane_needs
from workers.placement import place
from workers.plan_view import hardware_here

MB = 1_000_000
COMPILERS = ("c++", "g++", "clang++")
DRIVER = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
DRIVER_TIMEOUT_S = 20
LOADING = (ImportError, OSError, RuntimeError)
"""What comes of a llama.cpp that is not there, or whose libraries (CUDA's, say) are not."""


def machine(settings: Settings) -> list[Finding]:
    """What the machine has, beside what the profile asks of it."""
    gpus = detect_gpus()
    room = [*_placement(settings, gpus), _memory(settings, gpus), *disks(settings)]
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
    carded = {n for n in _in_process(settings) if gpus and _goes_to_card(settings, n)}
    needs = {n: bytes_in_memory(settings, n) for n in _in_process(settings) if n not in carded}
    if carded and not needs:
        return well("memory", f"{has}; models go to the cards")
    workers = settings.catalog.lanes.values()
    need = sum(needs.get(lane.model, 0) * lane.workers for lane in workers)
    which = f"models of profile {settings.profile}" + (" that go to no card" if carded else "")
    said = f"{has}; the {which} take about {need / GB:.1f} GB"
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


def _goes_to_card(settings: Settings, name: str) -> bool:
    """Whether a model in process leaves the machine's memory for a card, where there is one."""
    model = settings.catalog.models[name]
    if model.backend is not BackendName.LLAMA_CPP:
        return model.gpu_layers != 0
    try:
        return model.gpu_layers != 0 and _offloads()
    except LOADING:
        return False  # the line of llama.cpp tells


def bytes_in_memory(settings: Settings, name: str) -> int:
    """About how much a worker of a model takes: its weights, or the catalog's estimate if more."""
    model = settings.catalog.models[name]
    return max(file_bytes(model), (model.vram_mb or 0) * MB)


def _compiler() -> Finding:
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    built = find_spec("llama_cpp") is not None
    if found is not None:
        return well("compiler", found)
    if built:
        return well("compiler", "none, and none is needed: llama.cpp is there")
    mend = "install one (Debian: apt install build-essential), then run `make install`"
    return failure("compiler", "there is no C++ compiler, and llama.cpp is not built", mend)
