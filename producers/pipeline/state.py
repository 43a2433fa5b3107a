"""Where a pipeline's run stands: a file in its work directory, written after every change."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from config.errors import InputError
from config.load import one_line
from producers.pipeline.files import write_json
from producers.pipeline.plan import STATE_FILE, FileName, Loaded, read_json
from producers.pipeline.steps import STEPS


class Standing(StrEnum):
    """Of a step."""

    OPEN = "open"
    WAITING = "waiting"
    """For a person's word."""
    DONE = "done"
    REJECTED = "rejected"


class Condition(StrEnum):
    """Of a whole run."""

    RUNNING = "running"
    """Or interrupted: nobody but the process that runs it knows."""
    WAITING = "waiting"
    REJECTED = "rejected"
    FAILED = "failed"
    DONE = "done"


class StepState(BaseModel):
    """One step. ``generation`` counts how often it was begun anew by ``--from``."""

    model_config = ConfigDict(extra="forbid")

    number: int
    name: str
    file: FileName
    generation: int = 0
    run_id: str = ""
    standing: Standing = Standing.OPEN
    hash: str | None = None
    confidence: float | None = None
    gate: str | None = None
    why: tuple[str, ...] = ()
    """What a person has to look at."""
    approved: bool = False
    """Whether it went on by a person's word."""


class PipelineState(BaseModel):
    """A run with its steps; ``run`` is its id in the ledger."""

    model_config = ConfigDict(extra="forbid")

    run: str
    name: str
    profile: str
    config: str
    config_hash: str
    condition: Condition = Condition.RUNNING
    failure: str = ""
    steps: list[StepState]

    @model_validator(mode="after")
    def _has_all_steps(self) -> Self:
        if [(s.number, s.name) for s in self.steps] != [(s.number, s.name) for s in STEPS]:
            raise ValueError(f"steps are not the {len(STEPS)} of a pipeline in their order")
        return self

    @property
    def next(self) -> StepState | None:
        """The first step that is not done."""
        return next((step for step in self.steps if step.standing is not Standing.DONE), None)

    @property
    def unattended(self) -> bool:
        """Whether it came to its end without a person."""
        done = self.condition is Condition.DONE
        return done and not any(step.approved for step in self.steps)

    def write(self, workdir: Path) -> None:
        """Keep it."""
        write_json(workdir / STATE_FILE, self.model_dump(mode="json"))

    def begin_from(self, number: int) -> None:
        """Open the step of that number and all after it again.

        Raises:
            InputError: a step before it is not done.
        """
        for step in self.steps[: number - 1]:
            if step.standing is not Standing.DONE:
                raise InputError(
                    f"--from {number} needs step {step.number} ({step.name}), which is "
                    f"{step.standing.value}: begin with --from {step.number}"
                )
        for step in self.steps[number - 1 :]:
            begun = step.generation + (1 if step.run_id else 0)
            fresh = StepState(number=step.number, name=step.name, file=step.file, generation=begun)
            self.steps[step.number - 1] = fresh
        self.condition, self.failure = Condition.RUNNING, ""

    def settle(self, approve: bool) -> StepState:
        """A person's word on the step that waits; the step.

        Raises:
            InputError: none waits.
        """
        step = self.next
        if step is None or step.standing is not Standing.WAITING:
            raise InputError(
                f"no step of run {self.run} waits for a person, it is {self.condition.value}: see "
                "`uptier pipeline status`"
            )
        step.approved = approve
        step.standing = Standing.DONE if approve else Standing.REJECTED
        if not approve:
            self.condition = Condition.REJECTED
        else:
            self.condition = Condition.DONE if self.next is None else Condition.RUNNING
        return step


def new_state(loaded: Loaded, run: str, profile: str, config_hash: str) -> PipelineState:
    """The state of a run that begins."""
    steps = [
        StepState(number=one.step.number, name=one.name, file=one.file)
        for one in loaded.config.steps
    ]
    return PipelineState(
        run=run, name=loaded.config.name, profile=profile, config=str(loaded.path),
        config_hash=config_hash, steps=steps,
    )  # fmt: skip


def read_state(workdir: Path) -> PipelineState | None:
    """The state of the run in a work directory, if there is one.

    Raises:
        InputError: it is malformed.
    """
    path = workdir / STATE_FILE
    if not path.is_file():
        return None
    try:
        return PipelineState.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(one_line(error, str(path))) from None
