"""Steps 1 to 3: the window, the scorer's threshold, the full scores of the survivors."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from producers.pipeline.prng import Ints, drawn, hits, seeds_in_parts
from producers.pipeline.statistics import binomial_tail, chi_squared, folds, rounded
from producers.pipeline.work import Calculation, Done, Parameters, Result, StepError, Work

Modulus = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(gt=0, le=1)]
MOST_SURVIVORS = 5_000
"""More than these are no signal, and would only fill files."""


class WindowParameters(Parameters):
    """A window is as long as it must be for fewer than ``false_survivors`` seeds to pass it by
    chance, forward and backward, with ``match_rate`` of their residues right."""

    windows: tuple[Annotated[int, Field(ge=4)], ...] = Field(default=(25, 50, 100), min_length=1)
    modulus: Modulus = 8
    match_rate: Share = 0.8
    false_survivors: float = Field(default=0.01, gt=0)


class ScorerParameters(Parameters):
    """The grid that is searched, and the residue that tells survivors apart."""

    thresholds: tuple[Share, ...] = Field(default=(0.3, 0.5, 0.7, 0.9), min_length=1)
    fold_counts: tuple[Annotated[int, Field(ge=2, le=20)], ...] = Field(
        default=(3, 5), min_length=1
    )
    modulus: Modulus = 64


class ScoringParameters(Parameters):
    """Residues that are scored; ``threshold`` replaces the scorer's own."""

    moduli: tuple[Modulus, ...] = Field(default=(8, 64, 512, 1024), min_length=1)
    threshold: Share | None = None


def optimize_window(work: Work, parameters: WindowParameters) -> Done:
    """Step 1: the window and the seeds that survive the sieve at both its ends."""
    observed, generator = work.observed, work.given.generator
    window, expected = _window(len(observed), generator.seeds, parameters)
    survivors: list[dict[str, float]] = []
    least = math.ceil(parameters.match_rate * window)
    for seeds in seeds_in_parts(generator):
        same = hits(drawn(generator, seeds, len(observed)), observed, parameters.modulus)
        forward, backward = same[:, :window].sum(axis=1), same[:, -window:].sum(axis=1)
        survivors += [
            {"seed": int(seeds[i]), "forward": rounded(forward[i] / window),
             "backward": rounded(backward[i] / window)}
            for i in np.flatnonzero((forward >= least) & (backward >= least))
        ]  # fmt: skip
    counts = np.bincount(observed % parameters.modulus, minlength=parameters.modulus)
    test = chi_squared([int(one) for one in counts])
    figures = {
        "draws": len(observed), "window": window, "survivors": len(survivors),
        "expected_false_survivors": rounded(expected),
        "chi_squared": rounded(float(test.statistic)), "degrees_of_freedom": test.freedom,
        "p_value": rounded(test.p_value),
    }  # fmt: skip
    return Done(
        figures,
        {"window": window, "modulus": parameters.modulus, "survivors": survivors[:MOST_SURVIVORS]},
        (
            Calculation(
                f"A chi-squared test of equal frequencies has {parameters.modulus} classes. How "
                "many degrees of freedom does it have?",
                test.freedom,
            ),
            Calculation(
                f"{len(observed)} draws fall evenly into {parameters.modulus} classes. How many "
                "are expected in each class?",
                len(observed) / parameters.modulus,
            ),
        ),
    )


def _window(draws: int, seeds: int, parameters: WindowParameters) -> tuple[int, float]:
    """The shortest window that keeps chance out, else the longest that fits, and what passes."""
    fits = sorted(window for window in parameters.windows if window <= draws)
    if not fits:
        raise StepError(
            f"no window of {list(parameters.windows)} fits {draws} draws: give a shorter one"
        )
    for window in fits:
        least = math.ceil(parameters.match_rate * window)
        by_chance = seeds * binomial_tail(window, 1 / parameters.modulus, least) ** 2
        if by_chance < parameters.false_survivors:
            break
    return window, by_chance


def optimize_scorer(work: Work, parameters: ScorerParameters) -> Done:
    """Step 2: the threshold and the number of folds that choose survivors best out of sample."""
    observed = work.observed
    seeds = _survivors(work)
    same = hits(drawn(work.given.generator, seeds, len(observed)), observed, parameters.modulus)
    grid = [
        {"threshold": threshold, "k_folds": k, **_cross_validated(same, threshold, k, work.seed)}
        for threshold in parameters.thresholds
        for k in parameters.fold_counts
    ]
    best = max(grid, key=lambda one: (one["validation_score"], -one["threshold"], -one["k_folds"]))
    k = int(best["k_folds"])
    figures = {"trials": len(grid), "survivors": len(seeds), **best}
    return Done(
        figures,
        {"threshold": best["threshold"], "k_folds": k, "trials": grid},
        (
            Calculation(
                f"A grid has {len(parameters.thresholds)} thresholds and "
                f"{len(parameters.fold_counts)} numbers of folds. How many trials are that?",
                len(grid),
            ),
        ),
    )


def _cross_validated(
    same: NDArray[np.bool_], threshold: float, k: int, seed: int
) -> dict[str, float]:
    """How well those do on each fold that were chosen by the other folds: mean less spread."""
    scores = []
    for held in folds(same.shape[1], k, seed):
        chosen = same[:, ~held].mean(axis=1) >= threshold
        scores.append(float(same[chosen][:, held].mean()) if chosen.any() else 0.0)
    return {"validation_score": rounded(float(np.mean(scores) - np.std(scores)))}


def score_fully(work: Work, parameters: ScoringParameters) -> Done:
    """Step 3: every survivor's match rates by residue, on the early and on the late draws."""
    observed, seeds = work.observed, _survivors(work)
    tuned = work.of("scorer_meta_optimizer")
    threshold = tuned["threshold"] if parameters.threshold is None else parameters.threshold
    simulated = drawn(work.given.generator, seeds, len(observed))
    half = len(observed) // 2
    same = [hits(simulated, observed, modulus) for modulus in parameters.moduli]
    early = np.stack([one[:, :half].mean(axis=1) for one in same], axis=1)
    late = np.stack([one[:, half:].mean(axis=1) for one in same], axis=1).mean(axis=1)
    scores = (early.mean(axis=1) + late) / 2
    order = np.lexsort((seeds, -scores))
    rows: list[Result] = [
        {"seed": int(seeds[i]), "score": rounded(scores[i]),
         "early": [rounded(x) for x in early[i]], "late": rounded(late[i])}
        for i in order
    ]  # fmt: skip
    passed = sum(1 for row in rows if row["score"] >= threshold)
    figures = {
        "scored": len(rows), "passed": passed, "threshold": threshold,
        "best_score": rows[0]["score"], "mean_score": rounded(scores.mean()),
    }  # fmt: skip
    return Done(
        figures,
        {"moduli": list(parameters.moduli), "threshold": threshold, "rows": rows},
        (
            Calculation(
                f"{passed} of {len(rows)} survivors passed. What is their share, between 0 and 1?",
                passed / len(rows),
            ),
        ),
    )


def _survivors(work: Work) -> Ints:
    found = work.of("window_optimizer")["survivors"]
    if not found:
        raise StepError(
            f"step {work.step} has no survivors to score: lower match_rate of step 1 and run it "
            "again with --from 1"
        )
    return np.asarray([one["seed"] for one in found], dtype=np.int64)
