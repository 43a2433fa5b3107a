"""Corrections in the ledger: which one applies, and what workers do with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import OperationalError

from ledger import cache, calibrations, lifecycle
from ledger.answers import find_answered
from ledger.cache import Cached
from ledger.calibrations import (
    REREAD_US,
    Calibrated,
    Calibrations,
    Subject,
    forget,
    in_force,
    labelled,
    store,
)
from ledger.records import Claimed, Tried
from ledger.runs import start_run
from ledger.tables import TABLES
from routing.confidence import Correction
from routing.decision import ChoiceOutput, Decision, Preferences
from tests.unit.catalogs import catalog
from tests.unit.ledgers import claim_one, fresh, planned, rows
from workers.backends.base import Completion
from workers.backends.scripted import ScriptedBackend
from workers.questions import Questions

KEY = Subject("question", "small", "f", "question@1")
LEANS = Correction({"A": 2.0, "B": -2.0}, 0.5)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = fresh(tmp_path)
    yield engine
    engine.dispose()


@pytest.fixture
def run_id(engine: Engine) -> str:
    return start_run(engine, mode="test", profile="tiny", now=0).id


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


def ask(engine: Engine, run_id: str, key: str, expected: str | None = "A", **more: Any) -> str:
    asked = planned(key, "tier1", "tier2", template="question@1", expected=expected, **more)
    [found] = lifecycle.submit(engine, run_id, [asked], now=10).ids
    return found


def answer(engine: Engine, decision: str, **more: Any) -> None:
    claim_one(engine, decision, f"t{decision}", 20, "tier1")
    tried = Tried(decision, "small", "f", raw="A", label="A", probabilities=(0.9, 0.1))
    lifecycle.record(engine, f"t{decision}", [replace(tried, **more)], now=30)


def test_the_tables_of_the_migrations_are_those_of_the_code(engine: Engine) -> None:
    there = inspect(engine)
    for name, table in TABLES.tables.items():
        assert {c["name"] for c in there.get_columns(name)} == set(table.columns.keys())
    assert {i["name"] for i in there.get_indexes("calibration")} == {"ix_calibration_model"}


def test_the_newest_row_counts_and_only_for_its_own(engine: Engine) -> None:
    old, new = Calibrated(KEY, Correction(temperature=3), 60), Calibrated(KEY, LEANS, 80)
    other = Calibrated(replace(KEY, template="question@2"), Correction(temperature=4), 60)
    store(engine, [old, other], [], now=1)
    store(engine, [new], [], now=2)
    assert in_force(engine, "small", "f") == {KEY: LEANS, other.subject: other.correction}
    assert in_force(engine, "small", "g") == {}
    assert in_force(engine, "large", "f") == {}
    assert [r["samples"] for r in rows(engine, "calibration")] == [60, 60, 80]


def test_new_corrections_drop_the_cached_answers_of_their_lanes(engine: Engine) -> None:
    entries = [Cached("a", "A", "tier1", 0.9), Cached("b", "A", "tier2", 0.9)]
    cache.store(engine, entries, 1)
    store(engine, [], ["tier1"], now=2)
    assert len(cache.look_up(engine, ["a", "b"], 3)) == 2
    store(engine, [Calibrated(KEY, LEANS, 60)], ["tier1"], now=2)
    assert list(cache.look_up(engine, ["a", "b"], 3)) == ["b"]


def test_corrections_can_be_taken_back(engine: Engine) -> None:
    store(engine, [Calibrated(KEY, LEANS, 60)], [], now=2)
    assert forget(engine, "small", ["another"], [], 9) == 0
    assert forget(engine, "small", ["question"], [], 9) == 1
    assert in_force(engine, "small", "f") == {}


def test_history_is_one_sample_a_decision_with_a_known_answer(engine: Engine, run_id: str) -> None:
    known, unknown = ask(engine, run_id, "1"), ask(engine, run_id, "2", expected=None)
    adapted = ask(engine, run_id, "6", preferences=Preferences(adapter="own"))
    outside, foreign = ask(engine, run_id, "3", expected="C"), ask(engine, run_id, "4")
    twice = ask(engine, run_id, "5")
    for decision in (known, unknown, outside, adapted):
        answer(engine, decision)
    answer(engine, foreign, fingerprint="g")
    answer(engine, twice, error="overloaded", again_at=20)
    answer(engine, twice, probabilities=(0.4, 0.6), calibrated=(0.2, 0.8))
    found = labelled(engine, KEY, run_id)
    assert [(s.expected, s.labels, s.probabilities) for s in found] == [
        ("A", ("A", "B"), (0.9, 0.1)),
        ("A", ("A", "B"), (0.4, 0.6)),
    ]
    assert labelled(engine, KEY) == found
    assert labelled(engine, KEY, "another run") == []
    assert labelled(engine, replace(KEY, template="question@2")) == []


def test_the_check_sees_the_corrected_probabilities(engine: Engine, run_id: str) -> None:
    plain, corrected = ask(engine, run_id, "1"), ask(engine, run_id, "2")
    answer(engine, plain)
    answer(engine, corrected, label="B", calibrated=(0.3, 0.7))
    found = find_answered(engine, [plain, corrected])
    assert [(f.label, f.probabilities, f.raw) for f in found] == [
        ("A", (0.9, 0.1), "A"),
        ("B", (0.3, 0.7), "A"),
    ]
    assert [r["probabilities"] for r in rows(engine, "attempt")] == ["[0.9, 0.1]"] * 2


def test_a_worker_reads_corrections_again_after_a_minute(engine: Engine) -> None:
    clock = Clock()
    found = Calibrations(engine, "small", "f", clock)
    store(engine, [Calibrated(KEY, LEANS, 60)], [], now=2)
    clock.now += REREAD_US - 1
    assert found.find("question", "question@1") is None
    clock.now += 1
    assert found.find("question", "question@1") == LEANS
    assert found.find("question", "question@2") is None
    assert found.find("question", "") is None
    assert found.find("question", "question@1", "an adapter") is None


def test_a_ledger_that_is_away_leaves_them_in_force(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(engine, [Calibrated(KEY, LEANS, 60)], [], now=2)
    clock = Clock()
    found = Calibrations(engine, "small", "f", clock)

    def away(*_: object) -> None:
        raise OperationalError("", {}, Exception("database is locked"))

    monkeypatch.setattr(calibrations, "in_force", away)
    clock.now += REREAD_US
    assert found.find("question", "question@1") == LEANS


@pytest.fixture
def questions(engine: Engine) -> Questions:
    store(engine, [Calibrated(KEY, LEANS, 60)], [], now=2)
    clock = Clock()
    return Questions(
        catalog(), "tier1", backend=ScriptedBackend("small", catalog().models["small"]),
        fingerprint="f", clock=clock, calibrations=Calibrations(engine, "small", "f", clock),
    )  # fmt: skip


def claimed(decision: Decision) -> Claimed:
    return Claimed("1", "r", decision, "tier1", 0, 0, 0, "", 0)


def said(*probabilities: float) -> Completion:
    return Completion(id="1", raw="A", label="A", probabilities=probabilities or None)


@pytest.mark.parametrize(
    ("template", "labels", "own", "label", "corrected"),
    [
        ("question@1", ("A", "B"), (0.9, 0.1), "B", True),
        ("question@1", ("B", "A"), (0.001, 0.999), "A", True),
        ("question@2", ("A", "B"), (0.9, 0.1), "A", False),
        ("question@1", ("A", "B", "C"), (0.8, 0.1, 0.1), "A", False),
        ("question@1", ("A", "B"), (), "A", False),
        ("question@1", ("A", "B"), (0.9, 0.1), "A", None),
        ("question@1", ("A", "B"), (0.8, 0.1, 0.1), "A", False),
    ],
)
def test_an_answer_is_corrected_where_a_correction_fits(
    questions: Questions,
    template: str,
    labels: tuple[str, ...],
    own: tuple[float, ...],
    label: str,
    corrected: bool | None,
) -> None:
    wishes = Preferences(adapter="another" if corrected is None else None)
    asked = Decision(kind="question", prompt="?", output=ChoiceOutput(labels=labels), key="k",
                     template=template, preferences=wishes)  # fmt: skip
    tried = questions.tried(claimed(asked), said(*own), 0)
    assert (tried.label, tried.raw, tried.probabilities) == (label, "A", own or None)
    expected = LEANS.apply(labels, own) if corrected else None
    assert tried.calibrated == expected
