"""What every backend on this machine gives; the same words as for those that are served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from jsonschema import validate

from config.errors import Cancelled
from routing.decision import ChoiceOutput
from tests.contract.cases import CHOICE, JSON, SCHEMA, TEXT, ask, request
from tests.contract.local import CONTEXT, LOCAL
from workers.backends.base import Backend
from workers.cancellation import CancellationToken

GRAMMARLESS = "transformers"
CHATTY = "llama_server_v1"
"""Gives the probabilities of its twenty likeliest tokens, if labels are among them."""


@pytest.fixture(scope="module", params=LOCAL, ids=lambda made: made.__name__)
def local(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Backend]]:
    """A backend on this machine, and its name."""
    opened: AbstractContextManager[Backend] = request.param(tmp_path_factory.mktemp("local"))
    with opened as backend:
        yield request.param.__name__, backend
        backend.close()
        backend.close()


def test_a_choice_has_a_probability_for_each_label(local: tuple[str, Backend]) -> None:
    name, backend = local
    found = ask(backend, CHOICE)
    assert found.error is None
    if name == CHATTY and found.probabilities is None:
        assert found.label is None
        return
    assert found.probabilities is not None
    assert found.mass is not None
    assert sum(found.probabilities) == pytest.approx(1)
    assert 0 < found.mass <= 1
    assert found.label == CHOICE.labels[found.probabilities.index(max(found.probabilities))]
    assert found.tokens_in > 5


def test_labels_that_begin_one_another_are_told_apart(local: tuple[str, Backend]) -> None:
    name, backend = local
    labels = ChoiceOutput(labels=("GO", "GO HOME", "GO HOME NOW", "STAY"))
    found = ask(backend, labels)
    assert found.error is None
    if name != CHATTY:
        assert found.label in labels.labels
        assert found.probabilities is not None
        assert sum(found.probabilities) == pytest.approx(1)


def test_a_text_ends_before_its_stop_and_at_its_limit(local: tuple[str, Backend]) -> None:
    _, backend = local
    found = ask(
        backend, TEXT, prompt="Count from one to nine.", max_tokens=12, stops=("3", "three")
    )
    assert found.error is None
    assert "3" not in found.raw
    assert "three" not in found.raw
    assert 0 < found.tokens_out <= 12


def test_json_holds_to_its_schema_where_there_is_a_grammar(local: tuple[str, Backend]) -> None:
    name, backend = local
    found = ask(backend, JSON, prompt="How many hours has a day? Answer in JSON.")
    assert found.error is None
    if name == GRAMMARLESS:
        return
    try:
        said = json.loads(found.raw)
    except ValueError:  # blanks without end hold to a schema too
        assert found.truncated
        assert found.tokens_out == 60
    else:
        validate(said, SCHEMA)


def test_the_same_question_has_the_same_answer(local: tuple[str, Backend]) -> None:
    name, backend = local
    first, second = (ask(backend, CHOICE, prompt="Who waits?") for _ in range(2))
    assert first.label == second.label
    if name != CHATTY:
        assert first.probabilities == pytest.approx(second.probabilities, abs=0.02)


def test_what_was_asked_is_never_read_as_markup(local: tuple[str, Backend]) -> None:
    name, backend = local
    if name in ("scripted", CHATTY):
        pytest.skip("it makes no tokens of its own")
    plain = ask(backend, CHOICE, prompt="Who yields?")
    marked = ask(backend, CHOICE, prompt="Who yields?<|im_end|>")
    assert marked.tokens_in > plain.tokens_in + 3


def test_a_prompt_beyond_the_context_fails_alone(local: tuple[str, Backend]) -> None:
    name, backend = local
    if name == "scripted":
        pytest.skip("it has no context")
    requests = [
        request(CHOICE, "1"),
        request(CHOICE, "2", prompt="yield " * CONTEXT),
        request(TEXT, "3", max_tokens=4),
        request(JSON, "4"),
    ]
    done = {c.id: c for c in backend.answer(requests)}
    assert sorted(done) == ["1", "2", "3", "4"]
    assert [i for i, c in sorted(done.items()) if c.error] == ["2"]
    error = done["2"].error
    assert error is not None
    assert not error.retryable
    assert "context" in str(error)


def test_what_is_ones_own_costs_nothing(local: tuple[str, Backend]) -> None:
    _, backend = local
    assert backend.capabilities.local
    assert [backend.most_micros(request(output)) for output in (CHOICE, TEXT, JSON)] == [0, 0, 0]
    assert ask(backend, TEXT, max_tokens=4).cost_micros == 0


@pytest.mark.parametrize("stops", [(), ("e s", "zzz")], ids=["whole", "stopped"])
def test_the_pieces_of_a_text_are_its_answer(
    local: tuple[str, Backend], stops: tuple[str, ...]
) -> None:
    name, backend = local
    assert backend.capabilities.streaming
    heard: list[str] = []
    asked = request(TEXT, prompt="Tell a tale of the sea.", max_tokens=40, stops=stops)
    (found,) = backend.answer([replace(asked, on_text=heard.append)])
    assert found.error is None
    assert "".join(heard) == found.raw
    if name != "llama_server":  # what it has kept of prompts moves its logits, and so its draws
        assert found.raw == ask(backend, TEXT, prompt=asked.prompt, max_tokens=40, stops=stops).raw
    assert len(heard) > 1 or len(found.raw.split()) < 3


def test_a_cancelled_text_ends_early(local: tuple[str, Backend]) -> None:
    name, backend = local
    token, heard = CancellationToken(), []

    def listen(text: str) -> None:
        heard.append(text)
        token.set()

    asked = request(TEXT, prompt="Tell a long tale of the sea.", max_tokens=400)
    (found,) = backend.answer([replace(asked, on_text=listen, cancellation=token)])
    assert isinstance(found.error, Cancelled)
    assert len("".join(heard)) < 200
    assert ask(backend, CHOICE).error is None, f"{name} goes on with others"
