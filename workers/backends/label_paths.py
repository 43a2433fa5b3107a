"""The tokens that tell the labels of a choice apart."""

from __future__ import annotations

from collections.abc import Sequence

from config.errors import BackendError

Path = tuple[int, ...]


def parted(labels: Sequence[Sequence[int]], terminator: int | None) -> tuple[Path, ...]:
    """Each label's tokens up to where it parts from all others, at least one.

    A label that is the start of another one is ended by ``terminator``.

    Raises:
        BackendError: two labels have the same tokens, or a terminator is needed and unknown.
    """
    whole = [tuple(tokens) for tokens in labels]
    if len(set(whole)) < len(whole):
        raise BackendError("two labels have the same tokens", retryable=False)
    return tuple(
        _part(path, [other for other in whole if other != path], terminator) for path in whole
    )


def branches(paths: Sequence[Path]) -> dict[Path, set[int]]:
    """The places where paths part or go on: what leads there, and the tokens that follow."""
    found: dict[Path, set[int]] = {}
    for path in paths:
        for depth, token in enumerate(path):
            found.setdefault(path[:depth], set()).add(token)
    return found


def _part(path: Path, others: Sequence[Path], terminator: int | None) -> Path:
    for depth in range(1, len(path) + 1):
        if all(other[:depth] != path[:depth] for other in others):
            return path[:depth]
    if terminator is None:
        raise BackendError(
            "one label begins another, and the model has no token that ends an answer",
            retryable=False,
        )
    return (*path, terminator)
