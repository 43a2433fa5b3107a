"""The six steps: their numbers, follow-up agents, specialists, files and code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from config.errors import InputError
from producers.pipeline import learning, sieving
from producers.pipeline.work import Done, Parameters, Work


class Role(StrEnum):
    """The two specialists."""

    ORCHESTRATOR = "orchestrator"
    MATH = "math"


class Assigned(StrEnum):
    """Whose step it is."""

    ORCHESTRATOR = "orchestrator"
    MATH = "math"
    BOTH = "both"

    @property
    def roles(self) -> tuple[Role, ...]:
        """The specialists that judge the step, the one that reasons about it first."""
        if self is Assigned.BOTH:
            return (Role.ORCHESTRATOR, Role.MATH)
        return (Role(self.value),)


@dataclass(frozen=True)
class Step:
    """What a step is before any configuration; ``needs`` are the steps whose files it reads."""

    number: int
    name: str
    follow_up_agent: str | None
    assigned: Assigned
    output: str
    purpose: str
    needs: tuple[str, ...]
    needs_draws: bool
    figures: tuple[str, ...]
    """What its success can be measured by."""
    parameters: type[Parameters]
    code: Callable[[Work, Any], Done]


STEPS = (
    Step(1, "window_optimizer", "scorer_meta_agent", Assigned.MATH,
         "bidirectional_survivors.json",
         "find the shortest window of draws in which only real seeds survive the sieve",
         (), True, ("draws", "window", "survivors", "expected_false_survivors", "chi_squared",
          "degrees_of_freedom", "p_value"),
         sieving.WindowParameters, sieving.optimize_window),
    Step(2, "scorer_meta_optimizer", "full_scoring_agent", Assigned.MATH,
         "optimal_scorer_config.json",
         "find the threshold that chooses survivors best on draws they were not chosen by",
         ("window_optimizer",), True,
         ("trials", "survivors", "threshold", "k_folds", "validation_score"),
         sieving.ScorerParameters, sieving.optimize_scorer),
    Step(3, "full_scoring", "ml_meta_agent", Assigned.BOTH,
         "scored_survivors.json",
         "score every survivor by its match rates",
         ("window_optimizer", "scorer_meta_optimizer"), True,
         ("scored", "passed", "threshold", "best_score", "mean_score"),
         sieving.ScoringParameters, sieving.score_fully),
    Step(4, "ml_meta_optimizer", "reinforcement_agent", Assigned.ORCHESTRATOR,
         "model_config.json",
         "choose the penalty of the model by cross-validation",
         ("scorer_meta_optimizer", "full_scoring"), False,
         ("rows", "k_folds", "spread", "penalty", "rmse"),
         learning.ModelParameters, learning.optimize_model),
    Step(5, "anti_overfit_training", "prediction_agent", Assigned.BOTH,
         "trained_model.json",
         "train the model and show that it does as well on rows it never saw",
         ("full_scoring", "ml_meta_optimizer"), False,
         ("trained_on", "validated_on", "penalty", "raises", "train_rmse", "validation_rmse",
          "gap"),
         learning.TrainingParameters, learning.train),
    Step(6, "prediction", None, Assigned.MATH,
         "predictions.json",
         "predict the draws that were held out",
         ("full_scoring", "anti_overfit_training"), True,
         ("predicted", "right", "hit_rate", "baseline", "p_value"),
         learning.PredictionParameters, learning.predict),
)  # fmt: skip
"""In their order."""


def step_of(name: str) -> Step:
    """The step of that name.

    Raises:
        InputError: there is none.
    """
    for step in STEPS:
        if step.name == name:
            return step
    known = ", ".join(step.name for step in STEPS)
    raise InputError(f"step {name!r} is unknown: choose one of {known}")
