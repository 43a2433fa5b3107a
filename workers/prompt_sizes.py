"""Tokens of prompts as a local model reads them, in its own markup; nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from config.catalog import Sampling
from config.errors import InputError
from routing.decision import Output
from workers.backends.base import Request
from workers.backends.llama_prompt import Prompts
from workers.engine.vocabulary import Vocabulary


@dataclass(frozen=True)
class Question:
    """A constant part, and states that come after it."""

    system: str
    states: tuple[str, ...]
    output: Output


@dataclass(frozen=True)
class Size:
    """Tokens, the model's markup among them: ``shared`` by all states, and the others' own, the
    middle one's and the longest one's."""

    shared: int
    own: float
    most: int


def sizes(path: Path, questions: Sequence[Question]) -> list[Size]:
    """The size of each question with at least one state, in their order.

    Raises:
        InputError: the file is no model.
    """
    with _vocabulary(path) as vocabulary:
        prompts = Prompts(vocabulary)
        return [_size(prompts, question) for question in questions]


def _size(prompts: Prompts, question: Question) -> Size:
    found = [prompts.prompt(_request(question, state)) for state in question.states]
    own = [len(prompt.tokens) - prompt.shared for prompt in found]
    return Size(found[0].shared, median(own), max(own))


def _request(question: Question, state: str) -> Request:
    return Request(
        id="", kind="", system=question.system, prompt=state, output=question.output,
        sampling=Sampling(), seed=0,
    )  # fmt: skip


@contextmanager
def _vocabulary(path: Path) -> Iterator[Vocabulary]:
    """A model's vocabulary and markup, without its weights."""
    import llama_cpp

    from workers.engine.context import silence

    silence()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise InputError(f"{path} is not a model that llama.cpp can load: pull it again")
    vocabulary = Vocabulary(model)
    try:
        yield vocabulary
    finally:
        vocabulary.close()
        llama_cpp.llama_model_free(model)
