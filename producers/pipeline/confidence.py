"""How sure a step may be of itself, from what the ledger knows, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from producers.pipeline.caller import Heard
from producers.pipeline.plan import Thresholds

PROCEED, REVIEW, INVESTIGATE = "PROCEED", "REVIEW", "INVESTIGATE"
JUDGEMENTS = (PROCEED, REVIEW, INVESTIGATE)
DIGITS = 4


class Gate(StrEnum):
    """What comes after a step."""

    PROCEED = "proceed"
    PERSON = "person"
    INVESTIGATE = "investigate"
    """Another opinion is asked for, then a person."""


@dataclass(frozen=True)
class Mark:
    """One thing that was checked, between 0 (failed) and 1."""

    name: str
    value: float


def p_proceed(heard: Heard) -> float:
    """The probability with which a judge says that the step may go on.

    That of the label as the ledger has it, calibrated where a calibration is in force. A model
    that gives no probabilities counts by its verdict's score: as it is for PROCEED, else what is
    left to 1. No answer counts 0.
    """
    call = heard.call
    if call is None:
        return 0.0
    if call.probabilities is not None:
        return call.probabilities.get(PROCEED, 0.0)
    score = call.score or 0.0
    return score if heard.answer == PROCEED else 1 - score


def score_of(heard: Heard) -> float:
    """The verdict's score of an answer; 0 if there is none."""
    call = heard.call
    return 0.0 if call is None or not heard.answer else call.score or 0.0


def confidence(judges: Sequence[Heard], marks: Sequence[Mark]) -> float:
    """The lesser of what the judges say and of what was checked, both means between 0 and 1.

    The lesser, as neither may talk the other up: a judge knows no more than the figures, and
    checks do not see what the figures mean.
    """
    parts = []
    if judges:
        parts.append(math.fsum(p_proceed(one) for one in judges) / len(judges))
    if marks:
        parts.append(math.fsum(mark.value for mark in marks) / len(marks))
    return round(min(parts, default=0.0), DIGITS)


def gate(sure: float, thresholds: Thresholds, *, met: bool, person_wanted: bool) -> Gate:
    """What follows: nothing goes on by itself that missed a criterion or asked for a person."""
    if sure < thresholds.investigate:
        return Gate.INVESTIGATE
    if sure < thresholds.proceed or not met or person_wanted:
        return Gate.PERSON
    return Gate.PROCEED


def decision_of(judges: Sequence[Heard], after: Gate) -> str:
    """``llm_decision``: what the judges said, and whether it was taken."""
    said = {one.answer for one in judges}
    if len(said) > 1:
        return "specialists_disagree"
    if said == {PROCEED}:
        sure = "high" if after is Gate.PROCEED else "low"
        return f"proceed_with_{sure}_confidence"
    if said == {REVIEW}:
        return "review_by_a_person"
    return "investigate" if said == {INVESTIGATE} else "no_decision"
