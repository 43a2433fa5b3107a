"""Texts that somebody hears as they are written: the same answers and bills, told bit by bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config.errors import Cancelled
from routing.decision import Output
from tests.contract.cases import CHOICE, JSON, PRICE, TEXT, Case, ask, request
from tests.contract.protocols import Answer
from tests.contract.standins import Torn
from workers.backends.base import Backend, Completion
from workers.cancellation import CancellationToken

STOPS = ("A1", "A2", "A3", "A4", "A5", "---")
LONG = Answer("\nShe yields, as she said \u2014 and waits.A5 And more.---", tokens_out=17)


def hear(backend: Backend, output: Output = TEXT, **asked: Any) -> tuple[Completion, list[str]]:
    """The completion of a request, and the pieces that were told of it."""
    heard: list[str] = []
    one = replace(request(output, **asked), on_text=heard.append)
    (completion,) = backend.answer([one])
    return completion, heard


def test_the_pieces_of_a_text_are_its_answer_and_no_stop_is_told(case: Case) -> None:
    with case.opened(lambda asked: LONG) as (backend, standin):
        assert backend.capabilities.streaming
        found, heard = hear(backend, stops=STOPS, temperature=0.4)
        whole = ask(backend, TEXT, stops=STOPS, temperature=0.4)
    assert found.error is None
    assert "".join(heard) == found.raw == "She yields, as she said \u2014 and waits."
    assert len(heard) > 3
    assert standin.asked[0].body["stream"] is True
    same = ("raw", "tokens_in", "tokens_out", "tokens_cached", "cost_micros", "truncated")
    for name in same:
        assert getattr(found, name) == getattr(whole, name), name


def test_what_a_stream_reads_from_the_cache_is_billed_as_such(case: Case) -> None:
    answer = replace(LONG, cached=40 if case.cache else 0)
    with case.opened(lambda asked: answer) as (backend, _):
        found, _heard = hear(backend)
    assert found.tokens_cached == answer.cached
    assert found.cost_micros == (PRICE.micros(100, 17, 40) if case.paid else 0)


def test_a_text_that_the_limit_ended_says_so(case: Case) -> None:
    with case.opened(lambda asked: Answer("She yields bec", cut_off=True)) as (backend, _):
        found, heard = hear(backend)
    assert found.truncated
    assert "".join(heard) == "She yields bec"


@pytest.mark.parametrize("output", [CHOICE, JSON], ids=["choice", "json"])
def test_only_texts_are_told(case: Case, output: Output) -> None:
    likely = {"YIELD": 0.8, "INSIST": 0.1, "WAIT": 0.1}
    answer = Answer("YIELD", likely) if output is CHOICE else Answer('{"hours": 3}')
    with case.opened(lambda asked: answer) as (backend, standin):
        found, heard = hear(backend, output)
    assert (found.error, heard) == (None, [])
    assert not any(asked.body.get("stream") for asked in standin.asked)


@pytest.mark.parametrize("says", [None, "overloaded"], ids=["torn", "error"])
def test_a_stream_that_breaks_fails_and_may_have_been_billed(case: Case, says: str | None) -> None:
    with case.opened(lambda asked: Torn(LONG, 6, says)) as (backend, _):
        found, heard = hear(backend)
        most = backend.most_micros(request(TEXT))
    assert found.error is not None
    assert (found.error.retryable, found.error.outage) == (True, True)
    charge = found.error.unknown_charge_micros
    assert (charge is not None and 0 < charge <= most) if case.paid else charge is None
    assert LONG.text.strip().startswith("".join(heard))


def test_a_cancelled_text_is_broken_off_where_that_costs_nothing(case: Case) -> None:
    token = CancellationToken()
    heard: list[str] = []

    def listen(text: str) -> None:
        heard.append(text)
        token.set()

    one = replace(request(TEXT), on_text=listen, cancellation=token)
    with case.opened(lambda asked: LONG) as (backend, _):
        (found,) = backend.answer([one])
    if case.paid:  # it is billed anyway
        assert (found.error, found.cost_micros) == (None, PRICE.micros(100, 17))
        assert "".join(heard) == found.raw
    else:
        assert isinstance(found.error, Cancelled)
        assert len(heard) == 1


def test_a_call_that_was_cancelled_before_it_began_is_not_made(case: Case) -> None:
    token = CancellationToken()
    token.set()
    gone = replace(request(TEXT, "gone"), cancellation=token)
    with case.opened(lambda asked: LONG) as (backend, standin):
        done = {found.id: found for found in backend.answer([gone, request(TEXT, "stays")])}
    assert isinstance(done["gone"].error, Cancelled)
    assert done["stays"].error is None
    assert len(standin.asked) == 1
