"""What the engine found, as completions of those who asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from config.errors import BackendError
from routing.decision import ChoiceOutput
from workers.backends.base import Completion, Request
from workers.engine.jobs import Result, Written
from workers.engine.labels import LabelScores


def completions(requests: Sequence[Request], future: Future[Result]) -> Iterator[Completion]:
    """The same result for each who asked; only the first one's tokens were computed."""
    error = future.exception()
    for place, request in enumerate(requests):
        if error is not None:
            fault = error if isinstance(error, BackendError) else BackendError(str(error))
            yield Completion(id=request.id, error=fault)
        else:
            yield _completion(request, future.result(), shared=place > 0)


def _completion(request: Request, result: Result, *, shared: bool) -> Completion:
    answer = result.answer
    cached = result.tokens_in if shared else result.tokens_cached
    if isinstance(answer, Written):
        return Completion(
            id=request.id,
            raw=answer.text,
            tokens_in=result.tokens_in,
            tokens_out=answer.tokens,
            tokens_cached=cached,
            inference_s=result.seconds,
            truncated=answer.truncated,
        )
    assert isinstance(request.output, ChoiceOutput)
    return _choice(request, request.output.labels, answer, result, cached)


def _choice(
    request: Request, labels: Sequence[str], scores: LabelScores, result: Result, cached: int
) -> Completion:
    best = max(range(len(labels)), key=lambda i: scores.probabilities[i])
    return Completion(
        id=request.id,
        raw=labels[best],
        label=labels[best],
        probabilities=scores.probabilities,
        mass=scores.mass,
        tokens_in=result.tokens_in,
        tokens_out=1,
        tokens_cached=cached,
        inference_s=result.seconds,
    )
