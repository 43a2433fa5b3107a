"""Requests that are classified before they are planned: who is asked, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ledger.records import Planned
from producers.classifying import classify_first
from routing.classification import CLASSIFICATION_KIND, SCHEMA
from routing.critique import critic_question
from routing.decision import Complexity, Decision, Privacy, Settled, Status
from routing.policy import plan
from routing.structured import schema_fault
from tests.unit.catalogs import catalog, decision

SAID = {
    "complexity": "complex",
    "domain": "math",
    "urgency": "medium",
    "privacy_sensitivity": "high",
    "estimated_tokens": 400,
}
Ask = Callable[[Sequence[Planned]], list[Settled]]


def answering(asked: list[Planned], status: Status = Status.ACCEPTED) -> Ask:
    """Answers every classification alike and notes what it was asked."""

    def ask(questions: Sequence[Planned]) -> list[Settled]:
        asked.extend(questions)
        return [
            Settled(
                id=str(i), key=q.decision.key, kind=q.decision.kind, status=status,
                answer=json.dumps(SAID),
            )
            for i, q in enumerate(questions)
        ]  # fmt: skip

    return ask


def test_only_those_who_want_it_are_classified_and_in_their_order() -> None:
    asked: list[Planned] = []
    wanting = decision("never_heard_of", classify=True, key="b")
    given = [decision(key="a"), wanting, decision(key="c")]
    found = classify_first(given, catalog(), (), answering(asked))
    assert [one.key for one in found] == ["a", "b", "c"]
    assert found[0] is given[0]
    assert found[1].signals.complexity is Complexity.COMPLEX
    assert plan(found[1], catalog(), ()).lanes == ("tier2.math", "tier2")
    assert len(asked) == 1


def test_a_classification_is_a_json_decision_on_the_critics_tier_that_does_not_climb() -> None:
    asked: list[Planned] = []
    classify_first([decision(classify=True)], catalog(), (), answering(asked))
    [question] = asked
    assert question.decision.kind == CLASSIFICATION_KIND
    assert question.decision.preferences.privacy is Privacy.MAXIMUM
    assert question.plan.lanes == ("tier1",)
    assert "classified on local_fast" in question.plan.hops[0].reason
    assert "What next?" in question.decision.prompt
    assert schema_fault(SCHEMA) is None


def test_a_profile_may_want_it_for_all_but_critiques_and_classifications() -> None:
    asked: list[Planned] = []
    shop = catalog(routing={"classify": True})
    critic = critic_question(decision(), "A", "k.critic")
    given = [decision(), decision(classify=False), critic]
    classify_first(given, shop, (), answering(asked))
    classify_first([one.decision for one in asked], shop, (), answering(asked))
    assert [one.decision.key.split(".")[0] for one in asked] == ["classify"]


def test_the_same_request_has_the_same_classification() -> None:
    asked: list[Planned] = []
    for _ in range(2):
        classify_first([decision(classify=True)], catalog(), (), answering(asked))
    assert asked[0].decision == asked[1].decision


def test_an_answer_below_the_bar_is_not_believed() -> None:
    given: list[Decision] = [decision(classify=True)]
    assert classify_first(given, catalog(), (), answering([], Status.DEGRADED)) == given


def test_without_a_local_lane_or_in_time_requests_are_planned_as_they_were_asked() -> None:
    given: list[Decision] = [decision(classify=True)]
    only_cloud = catalog(without=("tier1", "tier2", "tier2.math"))
    asked: list[Planned] = []
    assert classify_first(given, only_cloud, (), answering(asked)) == given
    assert asked == []

    def late(_: Sequence[Planned]) -> list[Settled]:
        raise TimeoutError("1 decisions are not settled yet")

    assert classify_first(given, catalog(), (), late) == given
