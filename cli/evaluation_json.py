"""An evaluation as the object that ``uptier evaluate --json`` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from routing.evaluation import ESCALATING, Evaluation, Resplits, Score

DIGITS = 6


def as_object(name: str, found: Evaluation, again: Resplits | None, unit: str) -> dict[str, Any]:
    """Everything by name; figures are rounded to :data:`DIGITS` places, costs are not."""
    singles = {
        model: {"accuracy": _rounded(one.accuracy), "cost_usd": one.cost_usd}
        for model, one in found.singles.items()
    }
    return {
        "trace": name,
        "rows": found.rows,
        "cost_unit": unit,
        "singles": singles,
        "top": found.top,
        "policy": _score(found.policy) | {"lane_share": _rounded(dict(found.lane_share))},
        "guarantee": _guarantee(found, again),
        "ordering": _rounded(asdict(found.ordering)),
        "calibration_error": _rounded(dict(found.calibration_error)),
        "stated_calibration_error": _rounded(dict(found.stated_error)),
        "random_at_same_rate": _score(found.random_at_same_rate),
        "oracle": _score(found.oracle),
        "naive": _score(found.naive),
        "unbounded": _score(found.unbounded),
        "frontier": _rounded([list(point) for point in found.frontier]),
    } | ({} if again is None else {"resplits": _rounded(asdict(again))})


def _guarantee(found: Evaluation, again: Resplits | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "target": found.goal.target,
        "delta": found.goal.delta,
        "certified": found.certified,
        "violated": found.violated,
    }
    if not found.certified:
        shown["note"] = ESCALATING
    if again is not None:
        shown["violation_rate"] = _rounded(again.violation_rate)
    return shown


def _score(score: Score) -> dict[str, float]:
    shown = {k: _rounded(v) for k, v in asdict(score).items() if k != "cost_usd"}
    return shown | {"cost_usd": score.cost_usd}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
