"""What a step's code is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from config.catalog import Strict
from config.errors import InputError, UptierError
from producers.pipeline.prng import DrawData, Ints

Result = dict[str, Any]


class StepError(UptierError):
    """A step's code cannot go on with what the steps before it found."""


@dataclass(frozen=True)
class Calculation:
    """A question with one number as its answer, which the code knows; the specialist is asked."""

    question: str
    exact: float


@dataclass(frozen=True)
class Work:
    """What a step has to go on.

    ``earlier`` has the results of the steps before it by their names; the last ``holdout`` draws
    are for the prediction alone.
    """

    data: DrawData | None
    holdout: int
    seed: int
    earlier: Mapping[str, Result]
    step: str

    @property
    def given(self) -> DrawData:
        """The draws.

        Raises:
            InputError: they are not among the step's inputs.
        """
        if self.data is None:
            raise InputError(
                f"step {self.step} needs a file of draws among its inputs: add it in the config"
            )
        return self.data

    @property
    def observed(self) -> Ints:
        """All draws but those held out."""
        return np.asarray(self.given.draws[: len(self.given.draws) - self.holdout], dtype=np.int64)

    @property
    def held_out(self) -> Ints:
        """The draws that no step before the prediction sees."""
        return np.asarray(self.given.draws[len(self.given.draws) - self.holdout :], dtype=np.int64)

    def of(self, step: str) -> Result:
        """The result of an earlier step.

        Raises:
            InputError: its file is not among the step's inputs.
        """
        if step not in self.earlier:
            raise InputError(
                f"step {self.step} needs the file of step {step} among its inputs: add it in the "
                "config"
            )
        return self.earlier[step]


@dataclass(frozen=True)
class Done:
    """What came of it: ``figures`` are what success is measured by, ``result`` goes on."""

    figures: dict[str, float]
    result: Result
    calculations: tuple[Calculation, ...] = field(default=())


class Parameters(Strict):
    """What a step can be told; each step has its own."""
