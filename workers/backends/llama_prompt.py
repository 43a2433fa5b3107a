"""Requests as tokens: the constant part in front, what the asker wrote never read as markup."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from routing.decision import ChoiceOutput
from workers.backends.base import Request
from workers.engine.vocabulary import MARK, Vocabulary

ANSWER_LEAD = "Answer:"
TEMPLATES = 256
"""Constant parts that are remembered as tokens; the one used least recently goes first."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens; the first ``shared`` of them are the same for all of its template."""

    tokens: tuple[int, ...]
    shared: int


class Prompts:
    """Lays requests out in the model's chat markup. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._markup = lru_cache(TEMPLATES)(self._tokenize)

    def prompt(self, request: Request) -> Prompt:
        """A request's tokens, ending where the answer begins."""
        choice = isinstance(request.output, ChoiceOutput)
        shared, tail = self._markup(request.system, choice)
        own = self._vocabulary.tokens(request.prompt)
        return Prompt((*shared, *own, *tail), len(shared))

    def labels(self, output: ChoiceOutput) -> tuple[tuple[int, ...], ...]:
        """The labels as they would follow the prompt."""
        return tuple(tuple(self._vocabulary.tokens(" " + label)) for label in output.labels)

    def _tokenize(self, system: str, choice: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        vocabulary = self._vocabulary
        messages = [("user", MARK * 2)]
        if system:
            messages.insert(0, ("system", MARK))
        markup = vocabulary.chat(messages)
        if markup is None:
            markup = f"{MARK}\n\n{MARK * 2}\n\n" if system else f"{MARK * 2}\n\n"
        before, after = markup.split(MARK * 2)
        if system:
            first, between = before.split(MARK)
            tokens = vocabulary.tokens(first, special=True, start=True)
            tokens += vocabulary.tokens(system)
            tokens += vocabulary.tokens(between, special=True)
        else:
            tokens = vocabulary.tokens(before, special=True, start=True)
        tail = vocabulary.tokens(after + (ANSWER_LEAD if choice else ""), special=True)
        return tuple(tokens), tuple(tail)
