"""What only Anthropic's API has: streams that tell their bill, and a cache that is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from routing.decision import JsonOutput
from routing.refusals import refuses
from tests.contract.cases import CHOICE, PRICE, SCHEMA, SERVED, TEXT, ask, request
from tests.contract.protocols import Answer
from tests.contract.standins import Events, Outcome, Standin
from workers.backends.anthropic import LONG_TOKENS, AnthropicBackend
from workers.backends.base import Completion

CASE = next(case for case in SERVED if case.name == "anthropic")
LONG = LONG_TOKENS + 500
START = {
    "type": "message_start",
    "message": {
        "id": "msg", "type": "message", "role": "assistant", "model": "standin", "content": [],
        "stop_reason": None, "stop_sequence": None,
        "usage": {
            "input_tokens": 100, "output_tokens": 1,
            "cache_read_input_tokens": 40, "cache_creation_input_tokens": 20,
        },
    },
}  # fmt: skip
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
ENDING = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 7},
}
STOP = {"type": "message_stop"}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def says(text: str) -> dict[str, object]:
    delta = {"type": "text_delta", "text": text}
    return {"type": "content_block_delta", "index": 0, "delta": delta}


WHOLE = (START, BLOCK, says("She "), says("yields."), ENDING, STOP)


def streamed(outcome: Outcome, limit: int = LONG) -> tuple[Completion, Standin, int]:
    with CASE.opened(lambda asked: outcome) as (backend, standin):
        found = ask(backend, TEXT, max_tokens=limit)
        return found, standin, backend.most_micros(request(TEXT, max_tokens=limit))


def test_a_long_text_comes_as_a_stream_with_the_same_bill() -> None:
    found, standin, _ = streamed(Events(WHOLE))
    assert standin.asked[0].body["stream"] is True
    assert (found.raw, found.error, found.truncated) == ("She yields.", None, False)
    assert (found.tokens_in, found.tokens_out, found.tokens_cached) == (160, 7, 40)
    assert found.cost_micros == PRICE.micros(100, 7, 40, 20)


def test_a_short_text_and_a_choice_come_at_once() -> None:
    _, standin, _ = streamed(Answer("fine"), limit=LONG_TOKENS)
    assert "stream" not in standin.asked[0].body


@pytest.mark.parametrize("events", [WHOLE[:4], (*WHOLE[:3], OVERLOADED)], ids=["torn", "error"])
def test_a_stream_that_breaks_tells_what_is_known_of_its_bill(
    events: tuple[dict[str, object], ...],
) -> None:
    found, _, most = streamed(Events(events, whole=False))
    assert found.error is not None
    assert (found.error.retryable, found.error.outage) == (True, True)
    # What was read is known to the token, what was written at most the limit.
    assert found.error.unknown_charge_micros == PRICE.micros(100, LONG, 40, 20)
    assert found.error.unknown_charge_micros < most
    assert (found.tokens_in, found.tokens_cached) == (160, 40)
    assert found.raw.startswith("She")


def test_a_stream_that_lacks_only_its_end_is_an_answer() -> None:
    found, _, _ = streamed(Events(WHOLE[:5], whole=False))
    assert (found.raw, found.error) == ("She yields.", None)
    assert found.cost_micros == PRICE.micros(100, 7, 40, 20)


def test_a_stream_that_ends_without_an_ending_is_none() -> None:
    found, _, _ = streamed(Events(WHOLE[:4]))
    assert found.error is not None
    assert found.error.unknown_charge_micros == PRICE.micros(100, LONG, 40, 20)


@pytest.mark.parametrize("events", [(), (OVERLOADED,)], ids=["empty", "error"])
def test_a_stream_that_never_began_may_have_cost_its_most(
    events: tuple[dict[str, object], ...],
) -> None:
    found, _, most = streamed(Events(events))
    assert found.error is not None
    assert found.error.unknown_charge_micros == most


@pytest.fixture
def cached() -> Iterator[tuple[AnthropicBackend, Standin]]:
    with Standin(CASE.wording, lambda asked: Answer('{"hours": 3}')) as standin:
        model = CASE.model().model_copy(update={"cache_from_tokens": 1024})
        backend = CASE.open("standin", model, CASE.provider(standin.url))
        assert isinstance(backend, AnthropicBackend)
        yield backend, standin
        backend.close()


def test_a_long_constant_part_is_marked_for_the_cache(
    cached: tuple[AnthropicBackend, Standin],
) -> None:
    backend, standin = cached
    long = "Rule. " * 1000
    for output in (CHOICE, JsonOutput(json_schema=SCHEMA)):
        ask(backend, output, system=long)
    ask(backend, TEXT, system="Short.")
    first, second, third = (asked.body["system"] for asked in standin.asked)
    marked = [{"type": "text", "text": long, "cache_control": {"type": "ephemeral"}}]
    assert first == second == marked
    assert third == "Short."


def test_writing_to_the_cache_is_reserved_for(cached: tuple[AnthropicBackend, Standin]) -> None:
    backend, _ = cached
    most = backend.most_micros(request(TEXT, system="x" * 4000))
    assert most >= PRICE.micros(0, 60, 0, 4000)


@pytest.mark.parametrize("limit", [60, LONG], ids=["at once", "streamed"])
@pytest.mark.parametrize("reason", ["model_context_window_exceeded", "pause_turn", "unheard_of"])
def test_whatever_else_ends_a_text_has_cut_it_off(reason: str, limit: int) -> None:
    ending = {**ENDING, "delta": {"stop_reason": reason, "stop_sequence": None}}
    outcome: Outcome = Answer("She yields.", reason=reason)
    if limit == LONG:
        outcome = Events((*WHOLE[:4], ending, STOP))
    found, _, _ = streamed(outcome, limit)
    assert (found.raw, found.error, found.truncated) == ("She yields.", None, True)
    assert found.cost_micros > 0


def test_a_stream_that_ends_in_a_refusal_is_one() -> None:
    ending = {**ENDING, "delta": {"stop_reason": "refusal", "stop_sequence": None}}
    found, _, _ = streamed(Events((*WHOLE[:4], ending, STOP)))
    assert refuses(found.raw)
    assert found.cost_micros == PRICE.micros(100, 7, 40, 20)
