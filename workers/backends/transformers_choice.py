"""Scores the labels of many choices with a Hugging Face model, a row for each label's tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workers.backends.http_logprobs import Scores
from workers.label_paths import Path, branches

ROWS = 32
"""Rows of one forward pass: each holds its whole prompt."""


@dataclass(frozen=True)
class Question:
    """A prompt's tokens, and all tokens of each label."""

    prompt: list[int]
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Row:
    """What is read of one row: the places on the way of its ``tip``, the empty one first."""

    question: int
    tip: Path
    tokens: list[int]


def score(torch: Any, model: Any, questions: Sequence[Question]) -> list[Scores]:
    """One probability a label for each question: the product of its tokens', each given all
    before it."""
    rows = [
        Row(number, tip, [*question.prompt, *tip])
        for number, question in enumerate(questions)
        for tip in _tips(question.paths)
    ]
    follow: list[dict[Path, Any]] = [{} for _ in questions]
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        for row, logs in zip(part, _last_logprobs(torch, model, part), strict=True):
            for depth in range(len(row.tip) + 1):
                follow[row.question][row.tip[:depth]] = logs[depth - len(row.tip) - 1]
    return [_scores(q.paths, found) for q, found in zip(questions, follow, strict=True)]


def _tips(paths: Sequence[Path]) -> Iterator[Path]:
    """The places that lie on no other's way; all others are read on the way to them."""
    places = branches(paths)
    parents = {place[:-1] for place in places if place}
    return (place for place in places if place not in parents)


def _last_logprobs(torch: Any, model: Any, rows: Sequence[Row]) -> Any:
    """The log-probabilities of what follows the last tokens of each row, [rows, last, vocabulary].

    Rows are padded on the left, so that all end at the same place; what is padded is masked and
    not counted as a position.
    """
    width = max(len(row.tokens) for row in rows)
    last = max(len(row.tip) for row in rows) + 1
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row.tokens) :] = torch.tensor(row.tokens)
        mask[i, width - len(row.tokens) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=positions.to(model.device),
            use_cache=False,
            logits_to_keep=last,
        ).logits[:, -last:]
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
