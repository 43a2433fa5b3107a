"""Which worker processes a profile needs, their command lines and their environments."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import config
from config.queues import QUALITY
from config.settings import Settings
from workers.children import PARENT_PIPE
from workers.placement import Placement, Plan
from workers.stack_state import profile_key


@dataclass(frozen=True)
class WorkerSpec:
    """A worker process that the profile needs."""

    name: str
    lane: str
    placement: Placement


def worker_specs(plan: Plan) -> list[WorkerSpec]:
    """A worker for each seat, and one that checks quality."""
    specs = [WorkerSpec(seat.worker, seat.lane, seat.placement) for seat in plan.seats]
    return [*specs, WorkerSpec(f"{QUALITY}-1", QUALITY, Placement(hides_gpus=bool(plan.gpus)))]


def worker_command(spec: WorkerSpec) -> list[str]:
    """The command line of a worker."""
    return [sys.executable, "-m", "cli.main", "worker", spec.lane]


def worker_environment(
    spec: WorkerSpec, token: str, settings: Settings, broker_url: str
) -> dict[str, str]:
    """The environment of a worker: this process's, the settings in force, its name and pins."""
    return {
        **process_environment(settings),
        "UPTIER_BROKER_URL": broker_url,
        "UPTIER_WORKER_NAME": spec.name,
        "UPTIER_WORKER_TOKEN": token,
        PARENT_PIPE: "1",
        **spec.placement.environment(),
    }


def process_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the settings in force, for a process of Uptier."""
    given = settings.model_fields_set | {"data_dir", "models_dir"}
    ours = {
        f"UPTIER_{name.upper()}": str(value)
        for name in given
        if (value := getattr(settings, name)) is not None
    }
    return {
        **os.environ,
        **ours,
        "UPTIER_PROFILE": profile_key(settings.profile),
        "COLUMNS": "1000",  # an error stays one line of the log
        **_import_path(os.environ),
    }


def _import_path(environ: Mapping[str, str]) -> dict[str, str]:
    # `python -m` would look for modules in the current directory first, and a user's own
    # package `config` would be taken for ours.
    root = Path(config.__file__).parent.parent
    if root.name in ("site-packages", "dist-packages"):
        return {"PYTHONSAFEPATH": "1"}
    paths = [str(root), *filter(None, [environ.get("PYTHONPATH")])]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
