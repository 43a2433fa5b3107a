"""Has requests classified before they are planned, where somebody wants that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from config.catalog import Catalog
from config.errors import InputError
from config.load import AbsentLane
from ledger.records import Planned
from routing.classification import classification_question, classified, wants_classification
from routing.decision import Decision, Settled, Status
from routing.policy import plan

log = logging.getLogger(__name__)

READABLE = (Status.ACCEPTED, Status.CACHED, Status.REPLAYED)
CLASSIFY_S = 60
"""Seconds that requests wait for their classification; then they are planned without."""


def classify_first(
    decisions: Sequence[Decision],
    catalog: Catalog,
    absent: Sequence[AbsentLane],
    ask: Callable[[Sequence[Planned]], list[Settled]],
) -> list[Decision]:
    """The decisions with what the small model says of them.

    ``ask`` writes questions and waits for their settlements, in the same order; it may raise
    ``TimeoutError``. A classification is a decision like any other, counted and checked, but it
    never leaves the machine and does not climb: a doubtful one is worth less than its time.
    Whatever is not classified is planned as it was asked.
    """
    wanting = [i for i, one in enumerate(decisions) if wants_classification(one, catalog)]
    if not wanting:
        return list(decisions)
    try:
        questions = [_planned(decisions[i], catalog, absent) for i in wanting]
        answers = ask(questions)
    except (InputError, TimeoutError) as error:  # no local lane, or none in time
        log.warning("requests are planned without a classification: %s", error)
        return list(decisions)
    found = list(decisions)
    for i, settled in zip(wanting, answers, strict=True):
        if settled.status in READABLE:
            found[i] = classified(found[i], settled.answer)
    return found


def _planned(asked: Decision, catalog: Catalog, absent: Sequence[AbsentLane]) -> Planned:
    question = classification_question(asked)
    whole = plan(question, catalog, absent)
    return Planned(question, whole.model_copy(update={"hops": whole.hops[:1]}))
