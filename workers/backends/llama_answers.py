"""What the engine found, as completions of those who asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from config.errors import BackendError, DeadlinePassed
from routing.decision import ChoiceOutput
from workers.backends.base import Completion, Request
from workers.engine.jobs import Result, Written
from workers.engine.labels import LabelScores


def completions(
    requests: Sequence[Request], future: Future[Result], *, joined: bool
) -> Iterator[Completion]:
    """The same result for each who asked; only the first one's tokens were computed, and not even
    those where all ``joined`` another message's question."""
    error = future.exception()
    for place, request in enumerate(requests):
        if error is not None:
            yield Completion(id=request.id, error=_fault(request, error))
        else:
            yield _completion(request, future.result(), shared=joined or place > 0)


def _fault(request: Request, error: BaseException) -> BackendError:
    """Why one of those who asked the same has no answer."""
    if isinstance(error, DeadlinePassed):
        late = request.deadline is not None and request.deadline <= time.monotonic()
        if not late:  # it joined in the moment in which the others' time was over
            return BackendError("the deadline of all who asked the same before had just passed")
    return error if isinstance(error, BackendError) else BackendError(str(error))


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
