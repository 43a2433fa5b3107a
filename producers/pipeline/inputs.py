"""What a step reads: found, verified by hash, and sorted by what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.load import validated
from producers.pipeline.files import Read, check_step_file, read_input
from producers.pipeline.plan import InputFile, Loaded, StepConfig
from producers.pipeline.prng import DrawData
from producers.pipeline.state import PipelineState, StepState
from producers.pipeline.work import Result


@dataclass(frozen=True)
class Inputs:
    """A step's inputs: their entries, the draws, the results of earlier steps by their names, and
    what the step before suggests."""

    entries: tuple[dict[str, Any], ...]
    data: DrawData | None
    earlier: Mapping[str, Result]
    suggested: Mapping[str, Any]


def gather_inputs(loaded: Loaded, one: StepConfig, workdir: Path, state: PipelineState) -> Inputs:
    """Read the inputs of a step.

    Raises:
        InputError: one is missing, not the one that was written or is named, or malformed.
        ConfigurationError: the draws are malformed.
    """
    written = {step.file: step for step in state.steps[: one.step.number - 1]}
    entries: list[dict[str, Any]] = []
    data: DrawData | None = None
    earlier: dict[str, Result] = {}
    suggested: Mapping[str, Any] = {}
    for given in loaded.config.inputs(one):
        step = written.get(given.file)
        found = _read(given, step, workdir, loaded.path)
        if found is None:
            continue
        entries.append(found.entry)
        if step is not None:
            content = check_step_file(found.content, str(workdir / step.file))
            earlier[step.name] = content["result"]
            if step.number == one.step.number - 1:
                suggested = content["agent_metadata"].get("suggested_params", {})
        elif given.file == loaded.config.data.file:
            data = _draws(found, loaded.config.holdout)
    return Inputs(tuple(entries), data, earlier, suggested)


def _read(given: InputFile, step: StepState | None, workdir: Path, config: Path) -> Read | None:
    if step is None:
        mend = f"put it there, or correct its entry in {config}"
        return read_input(given, config.parent / given.file, None, mend)
    mend = f"restore it, or write it anew with --from {step.number}"
    return read_input(given, workdir / given.file, step.hash, mend)


def _draws(found: Read, holdout: int) -> DrawData:
    if not isinstance(found.content, dict):
        raise InputError(f"{found.name} must hold an object with generator and draws: correct it")
    data = validated(DrawData, found.content, found.name)
    if holdout >= len(data.draws):
        raise InputError(
            f"holdout {holdout} leaves none of the {len(data.draws)} draws of {found.name}: lower "
            "it in the config"
        )
    return data
