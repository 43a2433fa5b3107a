"""The tokens of a choice's labels, to the last one, and the places at which they are looked at."""

from __future__ import annotations

from collections.abc import Sequence

from config.errors import BackendError

Path = tuple[int, ...]

SCORING = 2
"""The way in which labels are scored; another one makes other probabilities of the same model."""


def whole_paths(labels: Sequence[Sequence[int]], terminator: int | None) -> tuple[Path, ...]:
    """All tokens of each label; one that is the start of another is ended by ``terminator``.

    No path begins another, so that no text counts for two labels.

    Raises:
        BackendError: two labels have the same tokens, or a terminator is needed and unknown.
    """
    whole = [tuple(tokens) for tokens in labels]
    starts = {path[:depth] for path in whole for depth in range(len(path))}
    if terminator is None and starts.intersection(whole):
        raise BackendError(
            "one label begins another, and the model has no token that ends an answer",
            retryable=False,
        )
    found = tuple((*p, terminator) if terminator is not None and p in starts else p for p in whole)
    if len(set(found)) < len(found):
        raise BackendError("two labels have the same tokens", retryable=False)
    return found


def branches(paths: Sequence[Path]) -> dict[Path, set[int]]:
    """Every place on the way of a path, shorter ones first, and the tokens that follow there.

    The empty place, the prompt's own end, comes first.
    """
    found: dict[Path, set[int]] = {}
    for path in paths:
        for depth, token in enumerate(path):
            found.setdefault(path[:depth], set()).add(token)
    return dict(sorted(found.items(), key=lambda place: len(place[0])))
