"""Steps 4 to 6: the penalty, the model that must not overfit, the prediction."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from producers.pipeline.prng import drawn
from producers.pipeline.statistics import Floats, binomial_tail, folds, ridge, rmse, rounded
from producers.pipeline.work import Calculation, Done, Parameters, StepError, Work

Penalty = Annotated[float, Field(ge=0)]
STEEPER = 10.0
"""By how much the penalty grows while a model overfits."""
MOST_RAISES = 8
FEWEST_ROWS = 10


class ModelParameters(Parameters):
    """Penalties that are tried; ``k_folds`` replaces the scorer's own number."""

    penalties: tuple[Penalty, ...] = Field(default=(0.001, 0.01, 0.1, 1.0), min_length=1)
    k_folds: int | None = Field(default=None, ge=2, le=20)


class TrainingParameters(Parameters):
    """The share of rows that the model never sees, and by how much it may do worse on them;
    ``penalty`` replaces the one that step 4 chose."""

    validation_share: float = Field(default=0.3, gt=0, lt=1)
    max_gap: float = Field(default=0.02, gt=0)
    penalty: Penalty | None = None


class PredictionParameters(Parameters):
    """How many of the best seeds are asked what comes next; the majority says."""

    candidates: int = Field(default=3, ge=1, le=100)


def optimize_model(work: Work, parameters: ModelParameters) -> Done:
    """Step 4: the penalty with the least error out of sample."""
    x, y = _table(work)
    k = parameters.k_folds or int(work.of("scorer_meta_optimizer")["k_folds"])
    trials = [
        {"penalty": penalty, "rmse": _cross_validated(x, y, penalty, k, work.seed)}
        for penalty in parameters.penalties
    ]
    best = min(trials, key=lambda one: (one["rmse"], -one["penalty"]))
    spread = rounded(y.std())
    figures = {"rows": len(y), "k_folds": k, "spread": spread, **best}
    return Done(figures, {"penalty": best["penalty"], "k_folds": k, "trials": trials})


def _cross_validated(x: Floats, y: Floats, penalty: float, k: int, seed: int) -> float:
    errors = []
    for held in folds(len(y), k, seed):
        weights, intercept = ridge(x[~held], y[~held], penalty)
        errors.append(rmse(x[held], y[held], weights, intercept))
    return rounded(float(np.mean(errors)))


def train(work: Work, parameters: TrainingParameters) -> Done:
    """Step 5: the model; its penalty grows until it does as well on rows that it never saw."""
    x, y = _table(work)
    held = np.zeros(len(y), dtype=np.bool_)
    size = max(1, round(parameters.validation_share * len(y)))
    if size >= len(y):
        raise StepError(
            f"validation_share {parameters.validation_share:g} leaves none of {len(y)} rows to "
            f"train on: lower it in step {work.step}"
        )
    held[np.random.default_rng(work.seed).permutation(len(y))[:size]] = True
    penalty = parameters.penalty
    if penalty is None:
        penalty = float(work.of("ml_meta_optimizer")["penalty"])
    for raises in range(MOST_RAISES + 1):
        weights, intercept = ridge(x[~held], y[~held], penalty)
        seen = rmse(x[~held], y[~held], weights, intercept)
        unseen = rmse(x[held], y[held], weights, intercept)
        if unseen - seen <= parameters.max_gap or raises == MOST_RAISES:
            break
        penalty = max(penalty, 1e-6) * STEEPER
    figures = {
        "trained_on": int((~held).sum()), "validated_on": size, "penalty": rounded(penalty),
        "raises": raises, "train_rmse": rounded(seen), "validation_rmse": rounded(unseen),
        "gap": rounded(unseen - seen),
    }  # fmt: skip
    return Done(
        figures,
        {"weights": [rounded(w) for w in weights], "intercept": rounded(intercept)},
        (
            Calculation(
                f"{len(y)} rows less {size} for validation. How many rows are trained on?",
                len(y) - size,
            ),
        ),
    )


def predict(work: Work, parameters: PredictionParameters) -> Done:
    """Step 6: what the best seeds say of the draws that were held out, and how often it is so."""
    model, held = work.of("anti_overfit_training"), work.held_out
    x, _ = _table(work)
    rows = work.of("full_scoring")["rows"]
    worth = x @ np.asarray(model["weights"]) + float(model["intercept"])
    order = sorted(range(len(rows)), key=lambda i: (-worth[i], rows[i]["seed"]))
    chosen = order[: parameters.candidates]
    seeds = np.asarray([rows[i]["seed"] for i in chosen], dtype=np.int64)
    before, generator = len(work.observed), work.given.generator
    said = drawn(generator, seeds, before + len(held))[:, before:]
    # The commonest value of each column; of equals the one of the better seed.
    votes = [max(column, key=lambda v: int((column == v).sum())) for column in said.T]
    right = sum(int(vote) == int(draw) for vote, draw in zip(votes, held, strict=True))
    by_chance = 1 / generator.range
    figures = {
        "predicted": len(held), "right": right, "hit_rate": rounded(right / len(held)),
        "baseline": rounded(by_chance), "p_value": binomial_tail(len(held), by_chance, right),
    }  # fmt: skip
    return Done(
        figures,
        {
            "seeds": [int(seed) for seed in seeds],
            "worth": [rounded(worth[i]) for i in chosen],
            "predictions": [int(vote) for vote in votes],
        },
        (
            Calculation(
                f"{right} of {len(held)} predictions were right. What share is that, between 0 "
                "and 1?",
                right / len(held),
            ),
        ),
    )


def _table(work: Work) -> tuple[Floats, Floats]:
    """Early match rates by residue, rows by features, and the late ones to be predicted."""
    rows = work.of("full_scoring")["rows"]
    if len(rows) < FEWEST_ROWS:
        raise StepError(
            f"step {work.step} has {len(rows)} scored survivors and needs {FEWEST_ROWS}: lower "
            "match_rate of step 1 and run it again with --from 1"
        )
    return np.asarray([row["early"] for row in rows]), np.asarray([row["late"] for row in rows])
