"""Scores the labels of many choices in one forward pass of a Hugging Face model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workers.backends.http_logprobs import Scores
from workers.backends.label_paths import Path, branches


@dataclass(frozen=True)
class Question:
    """A prompt's tokens, and each label's tokens up to where it parts from all others."""

    prompt: list[int]
    paths: tuple[Path, ...]


def score(torch: Any, model: Any, questions: Sequence[Question]) -> list[Scores]:
    """One probability a label for each question; a row for each place where labels part."""
    places = [branches(question.paths) for question in questions]
    rows = [
        [*question.prompt, *place]
        for question, found in zip(questions, places, strict=True)
        for place in found
    ]
    if not rows:
        return []
    logs = iter(_last_logprobs(torch, model, rows))
    found = []
    for question, here in zip(questions, places, strict=True):
        follow = {place: next(logs) for place in here}
        found.append(_scores(question.paths, follow))
    return found


def _last_logprobs(torch: Any, model: Any, rows: Sequence[Sequence[int]]) -> Any:
    """The log-probabilities of what follows each row, [rows, vocabulary].

    Rows are padded on the left, so that all end at the same place; what is padded is masked and
    not counted as a position.
    """
    width = max(map(len, rows))
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=positions.to(model.device),
            use_cache=False,
            logits_to_keep=1,
        ).logits[:, -1]
        return torch.log_softmax(logits.float(), dim=-1).cpu()


def _scores(paths: Sequence[Path], follow: dict[Path, Any]) -> Scores:
    """The product along each path; the mass is their sum before it is made 1."""
    found = []
    for path in paths:
        log = sum(float(follow[path[:depth]][token]) for depth, token in enumerate(path))
        found.append(log)
    top = max(found)
    weights = [math.exp(log - top) for log in found]
    whole = sum(weights)
    mass = min(1.0, whole * math.exp(top))
    return Scores(tuple(weight / whole for weight in weights), mass)
