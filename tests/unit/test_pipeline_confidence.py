"""How sure a step may be of itself, by what the ledger has of its judges and checks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.spoken import Spoken
from producers.pipeline.caller import Ask, Heard
from producers.pipeline.confidence import (
    JUDGEMENTS,
    Gate,
    Mark,
    confidence,
    decision_of,
    gate,
    p_proceed,
)
from producers.pipeline.plan import Thresholds
from producers.pipeline.questions import is_right
from producers.pipeline.steps import Role
from routing.decision import ChoiceOutput, Settled, Status

ASK = Ask("judge", Role.MATH, "?", ChoiceOutput(labels=JUDGEMENTS), "pipeline_judgement")
CALL = Spoken(
    decision_id="d", prompt="?", lane="low", model="m", outcome="answered", raw="", label=None,
    probabilities=None, score=0.9, tokens_in=1, tokens_cached=0, tokens_out=1, truncated=False,
    inference_us=1, cost_micros=0, at=1,
)  # fmt: skip


def heard(answer: str, probabilities: dict[str, float] | None = None, lane: str = "low") -> Heard:
    settled = Settled(id="d", key="k", kind="x", status=Status.ACCEPTED, answer=answer, lane=lane)
    calls = (replace(CALL, outcome="failed"), replace(CALL, probabilities=probabilities))
    return Heard(ASK, Role.MATH, settled, calls)


def test_a_judge_counts_by_the_probability_of_proceed_whatever_it_chose() -> None:
    assert p_proceed(heard("PROCEED", {"PROCEED": 0.7, "REVIEW": 0.3})) == 0.7
    assert p_proceed(heard("REVIEW", {"PROCEED": 0.3, "REVIEW": 0.7})) == 0.3


def test_a_judge_without_probabilities_counts_by_its_verdict() -> None:
    assert p_proceed(heard("PROCEED")) == 0.9
    assert p_proceed(heard("REVIEW")) == pytest.approx(0.1)


def test_no_answer_is_no_confidence() -> None:
    assert p_proceed(heard("", lane="elsewhere")) == 0
    assert confidence([], []) == 0


def test_neither_judges_nor_checks_talk_the_other_up() -> None:
    sure = [heard("PROCEED", {"PROCEED": 0.9}), heard("PROCEED", {"PROCEED": 0.7})]
    assert confidence(sure, [Mark("a", 1.0)]) == 0.8
    assert confidence(sure, [Mark("a", 1.0), Mark("b", 0.0)]) == 0.5


@pytest.mark.parametrize(
    ("sure", "met", "person", "expected"),
    [
        (0.8, True, False, Gate.PROCEED),
        (0.7999, True, False, Gate.PERSON),
        (0.5, True, False, Gate.PERSON),
        (0.4999, True, False, Gate.INVESTIGATE),
        (0.99, False, False, Gate.PERSON),
        (0.99, True, True, Gate.PERSON),
    ],
)
def test_the_gate(sure: float, met: bool, person: bool, expected: Gate) -> None:
    assert gate(sure, Thresholds(), met=met, person_wanted=person) is expected


@pytest.mark.parametrize(
    ("said", "after", "expected"),
    [
        (["PROCEED", "PROCEED"], Gate.PROCEED, "proceed_with_high_confidence"),
        (["PROCEED"], Gate.PERSON, "proceed_with_low_confidence"),
        (["PROCEED", "REVIEW"], Gate.PERSON, "specialists_disagree"),
        (["REVIEW"], Gate.PERSON, "review_by_a_person"),
        (["INVESTIGATE"], Gate.INVESTIGATE, "investigate"),
        ([""], Gate.INVESTIGATE, "no_decision"),
    ],
)
def test_the_decision_is_what_the_judges_said(said: list[str], after: Gate, expected: str) -> None:
    assert decision_of([heard(one) for one in said], after) == expected


@pytest.mark.parametrize(
    ("said", "right"),
    [(40, True), (40.4, True), (40.41, False), ("40", False), (True, False), (None, False)],
)
def test_a_calculation_is_right_within_a_hundredth(said: object, right: bool) -> None:
    assert is_right(said, 40) is right


def test_nothing_but_nothing_is_nothing() -> None:
    assert is_right(0, 0.0)
    assert not is_right(0.001, 0.0)
