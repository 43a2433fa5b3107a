"""Pieces of a text as it is written: what is told is never taken back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ledger.records import Claimed
from producers.streaming import MOST_UNREAD, Piece, Text, Told
from routing.decision import MAX_ANSWER_CHARS, Decision, TextOutput
from workers import telling
from workers.backends.http_questions import cut
from workers.pieces import Pieces, settled_part
from workers.telling import Teller

LETTERS = "ab \n-"
TEXTS = st.lists(st.text(LETTERS, max_size=4), max_size=12)
STOPS = st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=3)


@given(TEXTS, STOPS)
def test_pieces_are_the_text_that_the_stops_leave(parts: list[str], stops: list[str]) -> None:
    heard: list[str] = []
    pieces = Pieces(stops)
    pieces.add(heard.append)
    text = ""
    for part in parts:
        text += part
        pieces.look(text)
        assert cut(text, stops).startswith("".join(heard))
    pieces.end(cut(text, stops))
    assert "".join(heard) == cut(text, stops)
    assert "" not in heard


@given(TEXTS, STOPS)
def test_what_stands_of_a_text_stands_in_any_longer_one(parts: list[str], stops: list[str]) -> None:
    text = "".join(parts)
    stands = [settled_part(text[:end], stops) for end in range(len(text) + 1)]
    assert all(after.startswith(before) for before, after in pairwise(stands))


def test_who_comes_late_hears_all_of_it() -> None:
    early: list[str] = []
    late: list[str] = []
    last: list[str] = []
    pieces = Pieces(())
    assert not pieces.heard
    pieces.add(early.append)
    pieces.look("one two")
    pieces.add(late.append)
    pieces.look("one two three")
    pieces.end("one two three four")
    pieces.add(last.append)
    assert early == ["one two", " three", " four"]
    assert late == ["one two three", " four"]
    assert last == ["one two three four"]


def test_a_text_that_turns_out_another_is_told_no_further() -> None:
    heard: list[str] = []
    pieces = Pieces(())
    pieces.add(heard.append)
    pieces.look("I can")
    pieces.end("No.")
    assert heard == ["I can"]


def test_no_more_is_told_than_is_kept() -> None:
    heard: list[str] = []
    pieces = Pieces(())
    pieces.add(heard.append)
    pieces.look("x" * (MAX_ANSWER_CHARS + 5))
    pieces.end("x" * (MAX_ANSWER_CHARS + 9))
    assert "".join(heard) == "x" * MAX_ANSWER_CHARS


def claimed(name: str = "d", tries: int = 0) -> Claimed:
    asked = Decision(kind="k", prompt="Go on.", output=TextOutput(), key=name)
    return Claimed(name, f"run-{name}", asked, "tier1", tries, 1, 0, "", 0)


class Sent:
    """Stands in for the broker."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[dict[str, Any]]]] = []

    def __call__(self, run_id: str, pieces: Sequence[Mapping[str, Any]]) -> None:
        json.dumps(list(pieces))
        self.messages.append((run_id, [dict(piece) for piece in pieces]))

    def heard(self) -> list[Piece]:
        text = Text()
        for _, pieces in self.messages:
            for piece in pieces:
                text.hear(Told.model_validate(piece))
        return text.take()


def test_what_is_written_between_two_messages_goes_into_one() -> None:
    sent = Sent()
    teller = Teller(sent, every_s=3600)
    draft = teller.draft(claimed(tries=2), "tier2")
    words = [f"word{number} " for number in range(50)]
    for word in words:
        draft(word)
    teller.close()
    assert 1 <= len(sent.messages) <= 2 + len(words) // 10
    assert {run for run, _ in sent.messages} == {"run-d"}
    found = sent.heard()
    assert "".join(piece.text for piece in found) == "".join(words)
    assert {(piece.lane, piece.attempt) for piece in found} == {("tier2", 3)}
    draft("after the end")
    assert len(sent.heard()) == len(found)


def test_the_end_of_a_text_does_not_wait_for_more() -> None:
    sent = Sent()
    teller = Teller(sent, every_s=3600)
    draft = teller.draft(claimed(), "tier1")
    draft("at once")
    while not sent.messages:
        pass
    draft(" and the rest")
    draft.end()
    while len(sent.messages) < 2:
        pass
    assert [piece.text for piece in sent.heard()] == ["at once", " and the rest"]
    teller.close()


def test_what_no_broker_takes_is_lost_and_leaves_a_gap() -> None:
    sent = Sent()

    def broken(run_id: str, pieces: Sequence[Mapping[str, Any]]) -> None:
        if not sent.messages and any(piece["at"] == 0 for piece in pieces):
            sent.messages.append((run_id, []))
            raise ConnectionError("away")
        sent(run_id, pieces)

    teller = Teller(broken, every_s=0.001)
    draft = teller.draft(claimed(), "tier1")
    draft("lost ")
    while not sent.messages:
        pass
    draft("kept")
    teller.close()
    assert [piece["at"] for _, pieces in sent.messages for piece in pieces] == [5]
    assert sent.heard() == []


def test_what_waits_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(telling, "MOST_WAITING", 10)
    sent = Sent()
    teller = Teller(sent, every_s=3600)
    first, second = teller.draft(claimed("a"), "tier1"), teller.draft(claimed("b"), "tier1")
    first("x" * 11)
    second("fits")
    teller.close()
    assert [run for run, pieces in sent.messages if pieces] == ["run-b"]
    assert first.told == 11


def told(text: str, at: int, draft: str = "one", lane: str = "tier1", attempt: int = 1) -> Told:
    hop = ("tier1", "tier2").index(lane)
    return Told(id="d", draft=draft, hop=hop, lane=lane, attempt=attempt, at=at, text=text)


def test_pieces_after_a_gap_are_left_to_the_settlement() -> None:
    text = Text()
    for piece in (told("one ", 0), told("three ", 8), told("four", 14)):
        text.hear(piece)
    assert text.take() == [Piece("tier1", 1, "one ")]
    text.hear(told("anew", 0, "two", attempt=2))
    assert text.take() == [Piece("tier1", 2, "anew")]


def test_a_text_begun_again_after_its_worker_was_lost_has_a_number_of_its_own() -> None:
    text = Text()
    text.hear(told("half", 0, "lost"))
    text.hear(told("whole", 0, "next"))
    text.hear(told(" a text", 4, "lost"))  # the worker was only paused
    text.hear(told("higher", 0, "third", lane="tier2"))
    assert text.take() == [
        Piece("tier1", 1, "half"), Piece("tier1", 2, "whole"), Piece("tier2", 1, "higher"),
    ]  # fmt: skip


def test_what_comes_late_of_an_earlier_attempt_takes_nothing_back() -> None:
    text = Text()
    text.hear(told("second try", 0, "two", attempt=2))
    text.hear(told("first try", 0, "one", attempt=1))
    text.hear(told("higher", 0, "three", lane="tier2"))
    text.hear(told(" and on", 10, "two", attempt=2))
    text.hear(told(" still", 6, "three", lane="tier2"))
    assert [piece.text for piece in text.take()] == ["second try", "higher", " still"]


def test_a_text_that_nobody_reads_is_bounded() -> None:
    text = Text()
    size = MOST_UNREAD // 4
    for number in range(10):
        text.hear(told("x" * size, number * size))
    assert sum(len(piece.text) for piece in text.take()) <= MOST_UNREAD + size
