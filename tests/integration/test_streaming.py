"""Texts heard as they are written: real brokers, real workers, scripted models, word by word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.session import Session, session
from ledger.trail import trail
from producers.client import Piece
from routing.decision import ChoiceOutput, Decision, Settled, Status, TextOutput
from tests.integration.places import Place

WORDS = [f"word{number}" for number in range(600)]
PROFILE = f"""
[tiers.low]
rank = 1
[tiers.high]
rank = 2
[lanes.tier1]
tier = "low"
model = "fast"
[lanes.tier2]
tier = "high"
model = "good"
[models.fast]
backend = "scripted"
[models.fast.script]
lines = [
  {{ kind = "choice", answer = "A" }},
  {{ contains = "climb", answer = "I cannot help with that request.", word_s = 0.01 }},
  {{ contains = "long", answer = "{" ".join(WORDS)}.", word_s = 0.1 }},
  {{ answer = "The gate opens at eight, and closes at nine.", word_s = 0.03 }},
]
[models.good]
backend = "scripted"
[models.good.script]
lines = [{{ answer = "Ask at the desk, which opens at ten.", word_s = 0.01 }}]
[kinds.note]
tier = "low"
output = "text"
[kinds.routine]
tier = "low"
output = "text"
cache = true
[kinds.choice]
tier = "low"
output = "choice"
labels = ["A", "B"]
[routing]
unknown_kind_tier = "low"
critic_tier = "low"
"""


@pytest.fixture(scope="module")
def live(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    path: Path = tmp_path_factory.mktemp("profile") / "words.toml"
    path.write_text(PROFILE)
    settings = place.settings(profile=str(path))
    with session(settings, mode="test", own_workers=True) as opened:
        yield opened


def decision(prompt: str, key: str, kind: str = "note", **more: Any) -> Decision:
    return Decision(
        kind=kind, prompt=prompt, key=key, output=more.pop("output", TextOutput()), **more
    )


def heard(live: Session, asked: Decision) -> tuple[list[Piece], Settled]:
    """The pieces of a decision, and its settlement, which came last."""
    *pieces, last = live.client.stream(asked, timeout_s=60)
    assert isinstance(last, Settled)
    assert all(isinstance(piece, Piece) for piece in pieces)
    return [piece for piece in pieces if isinstance(piece, Piece)], last


def test_the_pieces_of_a_text_begin_its_answer(live: Session) -> None:
    pieces, settled = heard(live, decision("When?", "plain"))
    assert settled.status is Status.ACCEPTED
    assert pieces
    assert settled.answer.startswith("".join(piece.text for piece in pieces))
    assert settled.answer == "The gate opens at eight, and closes at nine."
    assert {(piece.lane, piece.attempt) for piece in pieces} == {("tier1", 1)}


def test_a_text_that_does_not_pass_is_void_with_the_next_lane(live: Session) -> None:
    pieces, settled = heard(live, decision("Do not climb", "climb"))
    assert (settled.status, settled.lane, settled.climbs) == (Status.ACCEPTED, "tier2", 1)
    writers = list(dict.fromkeys((piece.lane, piece.attempt) for piece in pieces))
    assert writers == [("tier1", 1), ("tier2", 1)]
    last = "".join(piece.text for piece in pieces if piece.lane == "tier2")
    assert last
    assert settled.answer.startswith(last)


def test_what_comes_from_the_cache_or_is_no_text_comes_whole(live: Session) -> None:
    heard(live, decision("Which?", "first", "routine"))
    pieces, settled = heard(live, decision("Which?", "again", "routine"))
    assert (pieces, settled.status) == ([], Status.CACHED)
    labels = ChoiceOutput(labels=("A", "B"))
    pieces, settled = heard(live, decision("Which?", "choice", "choice", output=labels))
    assert (pieces, settled.status) == ([], Status.ACCEPTED)


def test_who_only_waits_hears_nothing_and_gets_the_same(live: Session) -> None:
    [settled] = live.client.gather([decision("When?", "quiet")], timeout_s=60)
    assert settled.answer == "The gate opens at eight, and closes at nine."


def test_closing_a_stream_cancels_it_and_frees_its_lane(live: Session) -> None:
    stream = live.client.stream(decision("A long tale", "long"), timeout_s=60)
    assert isinstance(next(stream), Piece)
    stream.close()
    # The lane has one worker with one slot: whoever comes next waits until it is free.
    _, settled = heard(live, decision("And now?", "after"))
    assert (settled.status, settled.lane) == (Status.ACCEPTED, "tier1")
    [found] = live.client.gather([decision("A long tale", "long")], timeout_s=60)
    assert found.status is Status.CANCELLED
    assert trail(live.engine, found.id).attempts == []
    hearing = live.client.hearing()
    told = "".join(piece.text for piece in hearing.take(found.id))
    assert len(told.split()) < len(WORDS) // 2
