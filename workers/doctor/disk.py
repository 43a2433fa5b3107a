"""The disks: room for weights that are still to be fetched, and for the ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

from config.catalog import Model
from config.errors import WeightsError
from config.settings import Settings
from workers.doctor.finding import Finding, failure, well
from workers.models import (
    adapters_of,
    copies_while_pulled,
    original_path,
    partial_bytes,
    partial_dir,
    select,
    weights_of,
)

GB = 1_000_000_000
BYTES_PER_PARAMETER = 0.6
"""Of a model at four bits with its scales, where the catalog does not say how large the file is."""
LEDGER_BYTES = 2 * GB
"""For the ledger, logs and prepared formats beside the weights."""


def file_bytes(model: Model) -> int:
    """How large a model's file is; a guess where the catalog does not say."""
    if model.weights is not None and model.weights.size is not None:
        return model.weights.size
    return int((model.parameters_b or 0) * GB * BYTES_PER_PARAMETER)


def disks(settings: Settings) -> list[Finding]:
    """A line for the disk of the weights and one for that of the ledger."""
    wanted = {settings.models_dir: bytes_to_fetch(settings), settings.data_dir: LEDGER_BYTES}
    places = {"weights": settings.models_dir, "data": settings.data_dir}
    return [_disk(f"disk of {what}", path, wanted[path]) for what, path in places.items()]


def bytes_to_fetch(settings: Settings) -> int:
    """The room that `uptier models pull` takes at its fullest: it fetches one after another."""
    most = kept = 0
    for name in select(settings):
        for each in (name, *adapters_of(settings, name)):
            weights = weights_of(settings, each)
            if not _is_to_fetch(settings, each):
                continue
            # Of adapters the catalog knows no size but the file's.
            guessed = 0 if each != name else file_bytes(settings.catalog.models[name])
            size = weights.size or guessed
            left = size - partial_bytes(partial_dir(settings, weights))
            most = max(most, kept + left + (copies_while_pulled(weights) - 1) * size)
            kept += left
    return most


def _is_to_fetch(settings: Settings, name: str) -> bool:
    try:
        there = original_path(settings, name).exists()
    except WeightsError:
        return False  # the line of the weights tells
    return not there and weights_of(settings, name).source.kind != "file"


def _disk(name: str, path: Path, need: int) -> Finding:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / GB:.1f} GB free at {there}"
    if free < need:
        short = f"{said}, {need / GB:.1f} GB are needed"
        setting = "UPTIER_MODELS_DIR" if "weights" in name else "UPTIER_DATA_DIR"
        return failure(name, short, f"make room, or set {setting} to another disk")
    return well(
        name, said if need in (0, LEDGER_BYTES) else f"{said}, a pull takes {need / GB:.1f} GB"
    )
