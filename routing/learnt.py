"""One policy of a path with its names, for those who ask about one decision at a time.

Scoring (``routing/evaluation.py``) and serving go by the same path, steps and parts; here they are
found by name, and kept as JSON without a digit lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from routing.attempts import UNKNOWN, Attempts
from routing.cascade import Path, Step
from routing.logistic import Linear

FORM = 1
"""The form of the JSON; another form is of another version, and cannot be read."""


@dataclass(frozen=True)
class Learnt:
    """A path with the names of its kinds and answers, at the price with that index."""

    kinds: tuple[str, ...]
    answers: tuple[str, ...]
    path: Path
    price: int

    @cached_property
    def starts(self) -> dict[str, str]:
        """The model that each known kind begins with."""
        first = self.path.starts[self.price]
        return {kind: self.path.models[first[place]] for place, kind in enumerate(self.kinds)}

    @cached_property
    def models(self) -> frozenset[str]:
        """The models that it begins with or goes on from or to; others it has no word on."""
        steps = {place for step in self.path.steps for place in (step.below, step.above)}
        return frozenset(self.starts.values()) | {self.path.models[place] for place in steps}

    def next(self, model: str, kind: str, answer: str, confidence: float | None) -> str | None:
        """The model to ask after this attempt, or ``None`` if its answer is accepted.

        Raises:
            KeyError: the model or the kind was not among those that were learnt from.
        """
        code = self._code(answer)
        above = self.path.next(self.price, self._models[model], self._kinds[kind], code, confidence)
        return None if above is None else self.path.models[above]

    def keeps_lower(
        self,
        kind: str,
        below: tuple[str, str, float | None],
        above: tuple[str, str, float | None],
    ) -> bool | None:
        """Whether the lower answer is kept after both; (model, answer, confidence) each.

        ``None`` where no step leads from the one to the other.

        Raises:
            KeyError: a model or the kind was not among those that were learnt from.
        """
        step = self._steps.get((self._models[below[0]], self._models[above[0]]))
        if step is None:
            return None
        lower, upper = ((self._code(answer), p) for _, answer, p in (below, above))
        return step.keeps_lower_at(self._kinds[kind], lower, upper)

    def as_json(self) -> dict[str, Any]:
        """All that serving takes, as plain data: of the path this price alone."""
        path = self.path
        return {
            "form": FORM,
            "models": list(path.models),
            "kinds": list(self.kinds),
            "answers": list(self.answers),
            "price": float(path.prices[self.price]),
            "starts": [int(place) for place in path.starts[self.price]],
            "cost": [float(cost) for cost in path.cost],
            "own": {str(place): _to_json(parts) for place, parts in path.own.items()},
            "steps": [
                {"below": step.below, "above": step.above, "kept": _to_json(step.kept),
                 "lower": _to_json(step.lower), "upper": _to_json(step.upper)}
                for step in path.steps
            ],
        }  # fmt: skip

    @cached_property
    def _kinds(self) -> dict[str, int]:
        return {kind: place for place, kind in enumerate(self.kinds)}

    @cached_property
    def _answers(self) -> dict[str, int]:
        return {answer: place for place, answer in enumerate(self.answers)}

    @cached_property
    def _models(self) -> dict[str, int]:
        return {model: place for place, model in enumerate(self.path.models)}

    @cached_property
    def _steps(self) -> dict[tuple[int, int], Step]:
        return {(step.below, step.above): step for step in self.path.steps}

    def _code(self, answer: str) -> int:
        return self._answers.get(answer, UNKNOWN)


def learnt_of(rows: Attempts, path: Path, price: int) -> Learnt:
    """The policy of a path at the price with that index, with the names of its rows."""
    return Learnt(rows.kinds, rows.answers, path, price)


def from_json(data: Mapping[str, Any]) -> Learnt:
    """The policy that :meth:`Learnt.as_json` was taken of.

    Raises:
        ValueError: it is of another form.
    """
    if data.get("form") != FORM:
        raise ValueError(f"a policy of form {data.get('form')!r} is not one of form {FORM}")
    size = (len(data["kinds"]), len(data["answers"]) + 1)
    path = Path(
        models=tuple(data["models"]),
        cost=np.array(data["cost"], dtype=float),
        own={int(place): _of_json(parts, size) for place, parts in data["own"].items()},
        steps=tuple(
            Step(one["below"], one["above"], _of_json(one["kept"], size),
                 _of_json(one["lower"], size), _of_json(one["upper"], size))
            for one in data["steps"]
        ),
        prices=np.array([data["price"]], dtype=float),
        starts=np.array([data["starts"]], dtype=np.int64),
    )  # fmt: skip
    return Learnt(tuple(data["kinds"]), tuple(data["answers"]), path, 0)


def _to_json(parts: Sequence[Linear]) -> list[dict[str, Any]]:
    """The parts; of answers those with terms of their own: kind, answer, offset, slope."""
    return [
        {
            "model": part.model,
            "common": part.common.tolist(),
            "kinds": part.kinds.tolist(),
            "answers": [
                [int(kind), int(answer), *part.answers[kind, answer].tolist()]
                for kind, answer in np.argwhere(part.answers.any(axis=2))
            ],
        }
        for part in parts
    ]


def _of_json(data: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> tuple[Linear, ...]:
    found = []
    for one in data:
        answers = np.zeros((*size, 2))
        for kind, answer, offset, slope in one["answers"]:
            answers[kind, answer] = offset, slope
        kinds = np.array(one["kinds"], dtype=float).reshape(size[0], 2)
        common = np.array(one["common"], dtype=float)
        found.append(Linear(one["model"], common, kinds, answers))
    return tuple(found)
