"""What the engine works on: a choice is done after one forward pass, a text after many."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from config.catalog import Sampling
from workers.engine.context import Logits, Span
from workers.engine.drawing import Drawer, close_json
from workers.engine.labels import LabelScores, Path, Trie, score
from workers.engine.radix import Node
from workers.engine.vocabulary import Vocabulary
from workers.pieces import Hear, Pieces


@dataclass(frozen=True)
class Written:
    """What a model wrote; ``truncated`` if the token limit ended it."""

    text: str
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Result:
    """What became of a job. ``seconds`` counts from its admission."""

    answer: LabelScores | Written
    tokens_in: int
    tokens_cached: int
    seconds: float


@dataclass(eq=False)
class Job(ABC):
    """One request inside the engine. ``prompt`` is all of it, ``hint`` the part of it that
    requests of its template share; ``deadline`` is on ``time.monotonic``."""

    prompt: tuple[int, ...]
    hint: int
    adapter: str = ""
    deadline: float | None = None
    future: Future[Result] = field(default_factory=Future)
    node: Node | None = None
    sequences: list[int] = field(default_factory=list)
    computed: int = 0
    """Tokens of the prompt and of what was written that are in the context."""
    cached: int = 0
    """Tokens of the prompt that were computed, or being computed, for others."""
    queued: float = field(default_factory=time.monotonic)
    begun: float = 0.0
    restarts: int = 0

    @property
    @abstractmethod
    def extra(self) -> int:
        """The most cells that it needs beside what is known."""

    @property
    def wants(self) -> int:
        """How many sequences it needs."""
        return 1

    @property
    def known(self) -> Sequence[int]:
        """The tokens whose logits are to come: the prompt, and what was written so far."""
        return self.prompt

    @property
    @abstractmethod
    def rows_at_end(self) -> int:
        """Rows that must go into the batch with the last token of the prompt."""

    @property
    def rows_left(self) -> int:
        """Rows until it has its next logits."""
        return len(self.prompt) - self.computed + self.rows_at_end

    @abstractmethod
    def spans(self, room: int) -> list[Span]:
        """What to compute next, at most ``room`` rows; nothing if that is too few."""

    @abstractmethod
    def take(self, logits: Logits) -> bool:
        """Use the rows of the last spans that were wanted; whether it is done."""

    def restart(self) -> None:
        """Forget that anything is in a context."""
        self.node, self.sequences, self.computed = None, [], 0

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what it holds."""

    @property
    def overdue(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def finish(self, answer: LabelScores | Written) -> None:
        """Hand the answer out."""
        seconds = time.monotonic() - self.begun
        self.settle(Result(answer, len(self.prompt), self.cached, seconds))

    def settle(self, outcome: Result | BaseException) -> None:
        """End its future, unless its asker cancels it at this moment or it has ended."""
        with suppress(InvalidStateError):
            if isinstance(outcome, BaseException):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

    def _prefill(self, room: int, sequences: tuple[int, ...], reserved: int) -> list[Span]:
        """The next part of the known tokens; the last of them only with ``reserved`` more rows."""
        left = len(self.known) - self.computed
        take = min(left, room)
        if take == left and left + reserved > room:
            take = left - 1
        if take <= 0:
            return []
        part = self.known[self.computed : self.computed + take]
        return [Span(part, self.computed, sequences, wanted=take == left)]


@dataclass(eq=False)
class ChoiceJob(Job):
    """One label of a closed set."""

    trie: Trie = field(kw_only=True)

    @property
    def extra(self) -> int:
        return len(self.trie.paths)

    @property
    def wants(self) -> int:
        return 1 + len(self.trie.tips)

    @property
    def rows_at_end(self) -> int:
        return len(self.trie.paths)

    def spans(self, room: int) -> list[Span]:
        """The prompt; with its end the trie's inner nodes, each tagged with the tips below it."""
        found = self._prefill(room, tuple(self.sequences), self.rows_at_end)
        if found and found[-1].wanted:
            end = len(self.prompt)
            tips = dict(zip(self.trie.tips, self.sequences[1:], strict=True))
            for path in self.trie.paths:
                below = tuple(s for tip, s in tips.items() if tip[: len(path)] == path)
                found.append(Span(path[-1:], end + len(path) - 1, below, wanted=True))
        self.computed += len(found[0].tokens) if found else 0
        return found

    def take(self, logits: Logits) -> bool:
        rows: dict[Path, Logits] = dict(zip(((), *self.trie.paths), logits, strict=True))
        self.finish(score(self.trie, rows))
        return True


@dataclass(eq=False)
class TextJob(Job):
    """Text, or JSON by a schema, token by token."""

    vocabulary: Vocabulary = field(kw_only=True)
    sampling: Sampling = field(kw_only=True)
    seed: int = 0
    schema: str | None = None
    written: list[int] = field(default_factory=list)
    text: bytearray = field(default_factory=bytearray)
    drawer: Drawer | None = None
    pieces: Pieces = field(init=False)

    def __post_init__(self) -> None:
        """Nobody listens yet."""
        self.pieces = Pieces(self.sampling.stops)

    def tell(self, hear: Hear) -> None:
        """Let somebody hear the text as it is written, from its beginning; from any thread.

        JSON is not told: what its token limit cuts off is closed, and its last member may go.
        """
        if self.schema is None:
            self.pieces.add(hear)

    @property
    def extra(self) -> int:
        return self.sampling.max_tokens - len(self.written)

    @property
    def known(self) -> Sequence[int]:
        return (*self.prompt, *self.written) if self.written else self.prompt

    @property
    def rows_at_end(self) -> int:
        return 0

    @property
    def rows_left(self) -> int:
        return len(self.prompt) + len(self.written) - self.computed

    def spans(self, room: int) -> list[Span]:
        """What is known and not computed yet: the prompt at first, then a token at a time."""
        if self.written and self.computed == len(self.prompt) + len(self.written) - 1:
            place, self.computed = self.computed, self.computed + 1
            return [Span(self.written[-1:], place, tuple(self.sequences), wanted=True)]
        found = self._prefill(room, tuple(self.sequences), 0)
        self.computed += len(found[0].tokens) if found else 0
        return found

    def take(self, logits: Logits) -> bool:
        if self.drawer is None:
            self.drawer = Drawer(self.vocabulary.raw, self.sampling, self.seed, self.schema)
        token = self.drawer.draw(logits[0])
        if self.vocabulary.ends(token):
            self._end(len(self.text), truncated=False)
            return True
        self.drawer.accept(token)
        self.written.append(token)
        self.text += self.vocabulary.piece(token)
        cut = self._stop()
        if cut is not None:
            self._end(cut, truncated=False)
            return True
        if len(self.written) == self.sampling.max_tokens:
            self._end(len(self.text), truncated=True)
            return True
        if self.pieces.heard:
            self.pieces.look(bytes(self.text).decode("utf-8", errors="ignore"))
        return False

    def close(self) -> None:
        if self.drawer is not None:
            self.drawer.close()
            self.drawer = None

    def _end(self, end: int, *, truncated: bool) -> None:
        """Tell the rest before the answer is out: who has it hears no more."""
        written = self._written(end, truncated=truncated)
        self.pieces.end(written.text)
        self.finish(written)

    def _written(self, end: int, *, truncated: bool) -> Written:
        text = bytes(self.text[:end]).decode("utf-8", errors="ignore").strip()
        if truncated and self.schema is not None:
            closed = close_json(text)
            text, truncated = closed, closed != text  # whole at the very limit is whole
        return Written(text, len(self.written), truncated)

    def _stop(self) -> int | None:
        """Where the first stop begins, not counting stops before any text."""
        if self.schema is not None:
            return None  # JSON ends where its grammar ends; a stop could cut a string in two
        start = len(self.text) - len(self.text.lstrip())
        found = (self.text.find(stop.encode(), start) for stop in self.sampling.stops)
        return min((place for place in found if place >= 0), default=None)
