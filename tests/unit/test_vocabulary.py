"""A model is not freed while its tokens are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from config.errors import BackendError
from tests.unit.gguf_file import write_gguf
from workers.engine.context import silence
from workers.engine.vocabulary import Vocabulary


@pytest.fixture
def vocabulary(tmp_path: Path) -> Iterator[Vocabulary]:
    """The tokens of a model, without its weights."""
    path = tmp_path / "m.gguf"
    write_gguf(path)
    silence()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model
    yield Vocabulary(model)
    llama_cpp.llama_model_free(model)


def test_a_model_is_kept_until_those_who_read_it_are_done(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = vocabulary.tokens("ab")
    reading, goes_on = threading.Event(), threading.Event()
    order: list[str] = []
    real = llama_cpp.llama_tokenize

    def slow(*asked: Any) -> int:
        reading.set()
        goes_on.wait(60)
        count: int = real(*asked)
        order.append("read")
        return count

    def close() -> None:
        vocabulary.close()
        order.append("closed")

    found: list[list[int]] = []
    monkeypatch.setattr(llama_cpp, "llama_tokenize", slow)
    reader = threading.Thread(target=lambda: found.append(vocabulary.tokens("ab")))
    reader.start()
    assert reading.wait(60)
    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(BackendError, match="no longer loaded"):
        while True:  # until it is closed for others
            vocabulary.chat([("user", "?")])
    assert order == []
    goes_on.set()
    reader.join(60)
    closer.join(60)
    assert order == ["read", "closed"]
    assert found == [expected]


def test_nothing_is_read_of_a_model_that_is_gone(vocabulary: Vocabulary) -> None:
    vocabulary.close()
    vocabulary.close()
    for read in (
        lambda: vocabulary.tokens("a"),
        lambda: vocabulary.chat([("user", "?")]),
        lambda: vocabulary.end_of_turn,
    ):
        with pytest.raises(BackendError, match="no longer loaded"):
            read()
