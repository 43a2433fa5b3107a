"""What requests wish: from headers and bodies, within what their key allows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from starlette.datastructures import Headers

from config.strategies import Strategy
from producers.gateway.callers import NOBODY, Caller
from producers.gateway.pieces import PIECE_CHARS, in_pieces, left_of
from producers.gateway.wishes import Wishes, wished, wishes_of
from producers.openai_faults import RequestFault
from routing.decision import (
    CacheScope,
    ChoiceOutput,
    Decision,
    Payer,
    Privacy,
    Signals,
    TextOutput,
)

ANN = Caller("ann", Payer(name="ann", budget_usd=Decimal(5)), Privacy.MEDIUM)
PLAIN = Decision(kind="chat", prompt="?", output=TextOutput(), key="k")


def of(caller: Caller = NOBODY, headers: dict[str, str] | None = None, **uptier: Any) -> Wishes:
    return wishes_of(headers or {}, {"uptier": uptier}, caller)


def test_headers_and_body_say_the_same_things_and_the_body_goes_first() -> None:
    headers = {"x-uptier-kind": "mood", "x-uptier-max-cost-usd": "0.5", "x-uptier-cache": "off",
               "x-uptier-strategy": "cost", "x-uptier-deadline-s": "2.5"}  # fmt: skip
    found = of(headers=headers, kind="note", signals={"novel": True})
    assert (found.own.kind, found.own.deadline_s) == ("note", 2.5)
    assert found.own.signals == Signals(novel=True)
    wishes = found.preferences
    assert (wishes.max_cost_usd, wishes.cache, wishes.strategy) == (
        Decimal("0.5"), CacheScope.OFF, Strategy.COST,
    )  # fmt: skip


def test_a_wish_in_two_headers_is_refused() -> None:
    twice = [("x-uptier-privacy", "maximum"), ("x-uptier-privacy", "low")]
    headers = Headers(raw=[(name.encode(), value.encode()) for name, value in twice])
    with pytest.raises(RequestFault, match="twice"):
        wishes_of(headers, {}, NOBODY)


def test_a_wish_in_two_spellings_is_refused() -> None:
    with pytest.raises(RequestFault, match="twice"):
        of(headers={"x-uptier-max-cost-usd": "1", "x-uptier-max_cost_usd": "9"})


def test_uptier_s_own_field_is_taken_out_of_the_body() -> None:
    body: dict[str, Any] = {"model": "auto", "uptier": {"kind": "note"}}
    wishes_of({}, body, NOBODY)
    assert body == {"model": "auto"}


@pytest.mark.parametrize(
    ("by_header", "by_body", "strictest"),
    [
        (None, None, Privacy.MEDIUM),
        ("low", "low", Privacy.MEDIUM),
        ("high", "low", Privacy.HIGH),
        ("low", "maximum", Privacy.MAXIMUM),
    ],
)
def test_the_strictest_privacy_holds(
    by_header: str | None, by_body: str | None, strictest: Privacy
) -> None:
    headers = {} if by_header is None else {"x-uptier-privacy": by_header}
    body = {} if by_body is None else {"privacy": by_body}
    assert of(ANN, headers, **body).preferences.privacy is strictest


def test_the_key_pays_whatever_a_request_says() -> None:
    assert of(ANN).preferences.payer == ANN.payer
    for name in ("payer", "force_tier", "force_lane", "stream"):
        with pytest.raises(RequestFault) as error:
            of(ANN, **{name: "x"})
        assert error.value.param == f"uptier.{name}"
        with pytest.raises(RequestFault):
            of(ANN, {f"x-uptier-{name.replace('_', '-')}": "x"})


def test_keys_of_callers_do_not_meet_and_new_ones_differ() -> None:
    bob = Caller("bob")
    by_header = of(ANN, {"idempotency-key": "k"})
    assert by_header.key(ANN) == of(ANN, key="k").key(ANN) == "ann:k"
    assert of(bob, key="k").key(bob) == "bob:k"
    assert of(ANN).key(ANN) != of(ANN).key(ANN)
    long = of(ANN, key="k" * 200).key(ANN)
    assert len(long) <= 200
    assert long != of(ANN, key="k" * 199).key(ANN)


def test_agents_of_callers_do_not_meet() -> None:
    def agent(caller: Caller, **uptier: Any) -> str:
        return wished(PLAIN, of(caller, **uptier), caller).agent_id

    assert agent(ANN, agent_id="a-1") == "ann/a-1"
    assert agent(NOBODY, agent_id="a-1") == "a-1"
    assert agent(ANN) == ""
    assert agent(ANN, privacy="maximum") == "ann/"


def test_a_decision_gets_its_choices_deadline_fallback_and_signals() -> None:
    wishes = of(choices=["A", "B"], deadline_s=3, fallback="A", signals={"queue_length": 9})
    found = wished(PLAIN, wishes, NOBODY)
    assert found.output == ChoiceOutput(labels=("A", "B"))
    assert (found.deadline_s, found.fallback, found.signals.queue_length) == (3, "A", 9)


@pytest.mark.parametrize(
    "text", ["", "a", " ", "word " * 40, "x" * 200, "a\nb " * 30 + "y" * 100, "\n" * 120]
)
def test_pieces_of_a_text_are_the_text(text: str) -> None:
    pieces = list(in_pieces(text))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= PIECE_CHARS for piece in pieces)


@pytest.mark.parametrize(
    ("text", "said", "left"),
    [
        ("abc", "", "abc"),
        ("abc", "ab", "c"),
        ("abc", "abc", ""),
        ("abc", "abc \n", ""),
        ("abc d", "abc\n", " d"),
        ("abc", "abd", None),
        ("abc", "abcd", None),
    ],
)
def test_what_is_left_of_a_text_after_its_pieces(text: str, said: str, left: str | None) -> None:
    assert left_of(text, said) == left
