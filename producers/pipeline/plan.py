"""The config of a pipeline: its steps, files, thresholds, criteria and retries."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from config.catalog import Name, Strict
from config.errors import InputError
from config.load import read_toml, validated
from producers.pipeline.steps import STEPS, Assigned, Step, step_of
from producers.pipeline.work import Parameters
from routing.decision import Privacy

HASH = r"^sha256:[0-9a-f]{64}$"
STATE_FILE = "pipeline.state.json"
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


def _of_a_step(name: str) -> str:
    try:
        return step_of(name).name
    except InputError as error:
        raise ValueError(str(error)) from None


class InputFile(Strict):
    """A file that a step reads. With a ``hash`` it must be that very file."""

    file: str = Field(min_length=1, max_length=1000)
    hash: str | None = Field(default=None, pattern=HASH)
    required: bool = True


class Criterion(Strict):
    """Bounds on one of a step's figures."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a criterion needs at_least or at_most: give one")
        return self

    def met(self, value: float) -> bool:
        """Whether a figure keeps to it."""
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


class Thresholds(Strict):
    """Confidence from which a step proceeds by itself, and below which it is investigated."""

    proceed: float = Field(default=0.8, ge=0, le=1)
    investigate: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _are_in_order(self) -> Self:
        if self.investigate > self.proceed:
            raise ValueError(
                f"investigate {self.investigate:g} is above proceed {self.proceed:g}: lower it"
            )
        return self


class StepConfig(Strict):
    """One step; what is absent is the step's own."""

    name: Annotated[str, AfterValidator(_of_a_step)]
    specialist: Assigned | None = None
    inputs: tuple[InputFile, ...] | None = None
    """Absent: the draws and the files of earlier steps that it needs."""
    output: FileName | None = None
    parameters: dict[str, Any] = {}
    bounds: dict[str, tuple[float, float]] = {}
    """Parameters that a plan may set, each between two values; all others it may not."""
    success: dict[str, Criterion] = Field(min_length=1)
    """Bounds on the step's figures; what nothing measures cannot go on by itself."""
    retries: int | None = Field(default=None, ge=0, le=10)

    @property
    def step(self) -> Step:
        """What the step is."""
        return step_of(self.name)

    @property
    def assigned(self) -> Assigned:
        """Whose step it is."""
        return self.specialist or self.step.assigned

    @property
    def file(self) -> str:
        """The name of its output."""
        return self.output or self.step.output

    @model_validator(mode="after")
    def _parameters_are_the_steps_own(self) -> Self:
        self.read({})
        for name, (low, high) in self.bounds.items():
            if low > high:
                raise ValueError(f"bounds.{name}: {low:g} is above {high:g}: swap them")
            self.read({name: _plain(low)})
            self.read({name: _plain(high)})
        return self

    @model_validator(mode="after")
    def _figures_are_the_steps_own(self) -> Self:
        for name in self.success:
            if name not in self.step.figures:
                raise ValueError(
                    f"success.{name} is no figure of {self.name}: choose one of "
                    f"{', '.join(self.step.figures)}"
                )
        return self

    def read(self, changed: Mapping[str, Any]) -> Parameters:
        """The step's parameters, with some of them set otherwise."""
        return self.step.parameters.model_validate({**self.parameters, **changed})

    def takes(self, parameters: object) -> dict[str, float]:
        """Those of a plan's parameters that the step may be told: within bounds, of its types."""
        if not isinstance(parameters, Mapping):
            return {}
        found = {}
        for name, (low, high) in self.bounds.items():
            value = parameters.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if low <= value <= high and self._can_be(name, _plain(value)):
                found[name] = _plain(value)
        return found

    def _can_be(self, name: str, value: float) -> bool:
        try:
            self.read({name: value})
        except ValidationError:  # a whole number was wanted
            return False
        return True


class PipelineConfig(Strict):
    """A pipeline. Relative files lie beside the config; outputs of steps in the work directory."""

    name: Name
    seed: int = Field(default=0, ge=0)
    data: InputFile
    holdout: int = Field(default=20, ge=1)
    """Draws at the end that only the prediction sees."""
    retries: int = Field(default=1, ge=0, le=10)
    """Of each step that says nothing else."""
    timeout_s: float = Field(default=600, gt=0, allow_inf_nan=False)
    """How long a step's decisions may take."""
    privacy: Privacy = Privacy.LOW
    """How far the figures may travel: ``high`` and ``maximum`` never leave the machine."""
    thresholds: Thresholds = Thresholds()
    steps: tuple[StepConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _steps_follow_one_another(self) -> Self:
        names = [one.name for one in self.steps]
        wanted = [step.name for step in STEPS]
        if names != wanted:
            raise ValueError(
                f"steps are {', '.join(names)}: give all six in their order, {', '.join(wanted)}"
            )
        files = [one.file for one in self.steps]
        twice = next((file for file in files if files.count(file) > 1), None)
        if twice is not None:
            raise ValueError(f"output {twice!r} is that of two steps: give each its own")
        if STATE_FILE in files:
            raise ValueError(f"output {STATE_FILE!r} is where the run's state is: give another")
        return self

    def inputs(self, one: StepConfig) -> tuple[InputFile, ...]:
        """The files that a step reads."""
        if one.inputs is not None:
            return one.inputs
        files = {other.name: other.file for other in self.steps}
        draws = (self.data,) if one.step.needs_draws else ()
        return (*draws, *(InputFile(file=files[name]) for name in one.step.needs))

    def after(self, one: StepConfig) -> StepConfig | None:
        """The step that follows."""
        number = one.step.number
        return self.steps[number] if number < len(self.steps) else None


@dataclass(frozen=True)
class Loaded:
    """A config and where it was read."""

    config: PipelineConfig
    path: Path
    text: bytes


def load_config(path: Path) -> Loaded:
    """A pipeline's config from TOML or JSON.

    Raises:
        ConfigurationError: unreadable or malformed.
        InputError: no JSON.
    """
    data = read_json(path) if path.suffix == ".json" else read_toml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold an object with name, data and steps: correct it")
    return Loaded(validated(PipelineConfig, data, str(path)), path.absolute(), path.read_bytes())


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        InputError: unreadable, or not JSON; the message has line and column.
    """
    try:
        return strict_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path} cannot be read ({cause}): correct the path or file") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}; correct it there") from None


def strict_json(text: str) -> Any:
    """What JSON says: Python's reader also takes NaN, infinite numbers, and halves of characters,
    which no file can be written with.

    Raises:
        ValueError: it is none, or holds one of these.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    if "\\u" in text:  # halves of characters are only ever written as escapes
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _plain(value: float) -> float:
    """5 for 5.0, as JSON's writers may have either."""
    return int(value) if float(value).is_integer() else value
