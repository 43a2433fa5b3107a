"""What every backend takes and gives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from config.catalog import Sampling
from config.errors import BackendError
from routing.decision import MAX_ANSWER_CHARS, Output
from workers.cancellation import CancellationToken
from workers.pieces import Hear

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One call of one model. ``system`` is shared by many requests, ``prompt`` is its own."""

    id: str
    kind: str
    system: str
    prompt: str
    output: Output
    sampling: Sampling
    seed: int
    adapter: str = ""
    """The LoRA adapter to answer with; backends without adapters take no notice."""
    own_sample: bool = False
    """Whether it is computed by itself though another asks the same."""
    deadline: float | None = None
    """When its answer is no longer wanted, on ``time.monotonic``; a backend that can stop its work
    fails it with :class:`DeadlinePassed` then, all others take no notice."""
    on_text: Hear | None = field(default=None, compare=False)
    """Hears a text as it is written, by backends that stream; joined, the pieces are ``raw``."""
    cancellation: CancellationToken | None = field(default=None, compare=False)
    """Set when its answer is no longer wanted. A backend that can stop its work fails it with
    :class:`Cancelled` then. A paid call that was made goes on to its end: it is billed anyway."""

    @property
    def cancelled(self) -> bool:
        """Whether its answer is no longer wanted."""
        return self.cancellation is not None and self.cancellation.is_set()


@dataclass(frozen=True)
class Completion:
    """What a model said to a request, or why it could not.

    ``raw`` is the text as it came, at most ``MAX_ANSWER_CHARS`` of it. For a choice, ``label`` is
    the best one and ``probabilities`` has one value a label, in the order of the output's labels,
    summing to 1 over the closed set, with ``mass`` the share of the model's whole probability
    that the set holds; backends without log-probabilities leave both ``None``. Times are in
    seconds, prices in micro-dollars; ``tokens_in`` includes ``tokens_cached``.
    """

    id: str
    raw: str = ""
    label: str | None = None
    probabilities: tuple[float, ...] | None = None
    mass: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    inference_s: float = 0.0
    cost_micros: int = 0
    truncated: bool = False
    error: BackendError | None = None

    def __post_init__(self) -> None:
        """Shorten a text that is longer than the ledger should take."""
        if len(self.raw) > MAX_ANSWER_CHARS:
            object.__setattr__(self, "raw", self.raw[:MAX_ANSWER_CHARS])
            object.__setattr__(self, "truncated", True)


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do."""

    local: bool
    probabilities: bool
    batching: bool = False
    streaming: bool = False
    """Whether it tells texts as they are written, to requests with ``on_text``."""
    adapters: bool = False


class Backend(Protocol):
    """Answers requests; one bad request never fails its neighbours."""

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do."""
        ...

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """One completion for each request, in whatever order they are done.

        A request that fails alone yields a completion with ``error`` set; whatever is raised
        fails all requests that have no completion yet.
        """
        ...

    def most_micros(self, request: Request) -> int:
        """The most that a call with this request can cost, in whole micro-dollars; 0 if free."""
        ...

    def close(self) -> None:
        """Give back what the backend holds."""
        ...


def figures_of(backend: Backend) -> dict[str, float]:
    """What a backend has done and where it stands, by name; empty for one that does not count.

    A backend that does has a method ``figures`` that any thread may call.
    """
    read: Callable[[], dict[str, float]] | None = getattr(backend, "figures", None)
    return {} if read is None else read()


def log_bug(lane: str, error: Exception) -> BackendError:
    """An exception that no backend should raise, as a failure that may be tried again."""
    log.error("lane %s: the backend raised", lane, exc_info=error)
    return BackendError(f"{type(error).__name__}: {error}")


def failed(requests: Iterable[Request], error: BackendError) -> Iterator[Completion]:
    """A failure for each of the requests."""
    for request in requests:
        yield Completion(id=request.id, error=error)
