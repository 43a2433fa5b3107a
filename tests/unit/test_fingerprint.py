"""Which questions share an answer: tests of the cache key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.decision import ChoiceOutput, Signals
from routing.fingerprint import cache_key, load_bucket, normalised
from tests.unit.catalogs import decision


def key(model: str = "m@1", **values: Any) -> str:
    return cache_key(decision(**values), model)


@pytest.mark.parametrize(
    "change",
    [
        {"key": "another"},
        {"seed": 7},
        {"agent_id": "designer-17"},
        {"queue_length": 5},
        {"deadline_days": 3},
        {"prompt": "At 09:45 on 2026-11-22, what next?"},
    ],
)
def test_what_does_not_change_the_question_does_not_change_the_key(
    change: dict[str, Any],
) -> None:
    same = {"agent_id": "designer-1", "prompt": "At 14:30 on 2026-11-21, what next?"}
    assert key(**{**same, **change}) == key(**same)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "blocker_resolution"},
        {"agent_id": "reviewer-1"},
        {"queue_length": 6},
        {"deadline_days": 2.9},
        {"prompt": "What now?"},
        {"system": "You are a designer."},
        {"template": "next_action@2"},
        {"output": ChoiceOutput(labels=("B", "A"))},
        {"model": "m@2"},
    ],
)
def test_what_changes_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    same = {"agent_id": "designer-1", "template": "next_action@1"}
    assert key(**{**same, **change}) != key(**same)


def test_a_key_is_a_sha256_in_hexadecimal() -> None:
    assert len(key()) == 64
    int(key(), 16)


def test_neighbouring_parts_cannot_be_mistaken_for_one_another() -> None:
    assert key(system="ab", prompt="c") != key(system="a", prompt="bc")


def test_a_long_queue_counts_before_a_near_deadline() -> None:
    assert load_bucket(Signals(queue_length=6, deadline_days=1)) == "high_load"
    assert load_bucket(Signals(queue_length=5, deadline_days=1)) == "urgent"
    assert load_bucket(Signals()) == "normal"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("due 2026-11-21", "due <date>"),
        ("due 21/11/2026, or 21.11.2026", "due <date>, or <date>"),
        ("due 3 Nov 2026 or November 3, 2026", "due <date> or <date>"),
        ("at 2026-11-21T14:30:05.123Z", "at <date><time>"),
        ("at 2026-11-21 09:15", "at <date> <time>"),
        ("from 09:15 to 18:00:30", "from <time> to <time>"),
        ("at 2:30 pm or 11 AM", "at <time> or <time>"),
        ("task 123e4567-e89b-12d3-a456-426614174000 waits", "task <id> waits"),
    ],
)
def test_dates_times_and_uuids_are_normalised(text: str, expected: str) -> None:
    assert normalised(text) == expected


@pytest.mark.parametrize(
    "text", ["scale 1:50", "version 1.2.3", "3 of 7 tasks", "may 5 people come", "part 2026-11"]
)
def test_other_numbers_stay_as_they_are(text: str) -> None:
    assert normalised(text) == text


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)
