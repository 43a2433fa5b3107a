"""Audits: which answers are chosen, who pays, what they label, and what they never touch."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from config.auditing import Audit
from config.catalog import CloudBudget
from ledger import labels, lifecycle
from ledger.budgets import Bound, bounds_of
from ledger.clock import SECOND
from ledger.labels import Source, by_person, labelled
from ledger.records import Claimed
from ledger.reports import Report, report
from ledger.runs import find_run
from ledger.tried import tried
from routing.audit import agrees, audit_lane, is_chosen
from routing.decision import JsonOutput, Preferences, Privacy, TextOutput
from tests.unit.audited_house import AB, House
from tests.unit.catalogs import LANES, catalog, decision
from tests.unit.ledgers import rows
from workers.questions import Questions

DAY = 86_400 * SECOND


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    opened = House(tmp_path)
    yield opened
    opened.engine.dispose()


def test_the_share_that_is_chosen_is_the_configured_one_and_stays_the_same() -> None:
    names = [f"d{n}" for n in range(20_000)]
    chosen = {name for name in names if is_chosen(name, 0.02)}
    assert 340 < len(chosen) < 460
    assert chosen == {name for name in names if is_chosen(name, 0.02)}
    assert chosen <= {name for name in names if is_chosen(name, 0.1)}
    assert not any(is_chosen(name, 0) for name in names)
    assert all(is_chosen(name, 1) for name in names)


@pytest.mark.parametrize(
    ("lane", "asked", "without", "audited_by"),
    [
        ("tier1", {}, (), "tier3"),
        ("tier2", {}, ("tier3",), "tier3.openai"),
        ("tier3", {}, (), None),
        ("tier3.openai", {}, (), None),
        ("tier1", {}, ("tier3", "tier3.openai"), None),
        ("tier1", {"privacy": Privacy.HIGH}, (), None),
        ("tier1", {"privacy": Privacy.MAXIMUM}, (), None),
        ("tier1", {"privacy": Privacy.MEDIUM}, (), "tier3"),
        ("tier1", {"expected": "A"}, (), None),
        ("tier1", {"output": TextOutput()}, (), None),
        ("tier1", {"kind": "self_critique"}, (), None),
        ("gone", {}, (), "tier3"),
    ],
)
def test_who_audits(
    lane: str, asked: dict[str, Any], without: tuple[str, ...], audited_by: str | None
) -> None:
    assert audit_lane(decision(**asked), lane, catalog(without=without)) == audited_by


def test_a_local_top_lane_audits_private_decisions_and_the_specialist_goes_first() -> None:
    lanes = LANES | {
        "top": {"tier": "cloud", "model": "medium"},
        "top.math": {"tier": "cloud", "model": "sums", "speciality": "math"},
    }
    private = decision(privacy=Privacy.MAXIMUM)
    assert audit_lane(private, "tier1", catalog(lanes=lanes)) == "top"
    sums = decision("residue_analysis", privacy=Privacy.MAXIMUM)
    assert audit_lane(sums, "tier1", catalog(lanes=lanes)) == "top.math"


@pytest.mark.parametrize(
    ("output", "answer", "truth", "agreed"),
    [
        (AB, "A", "A", True),
        (AB, "A", "B", False),
        (AB, "", "A", False),
        (TextOutput(), "the same", "the same", None),
        (JsonOutput(json_schema={}), '{"a":1,"b":2.0}', '{"b":2,"a":1}', True),
        (JsonOutput(json_schema={}), '{"a":1}', '{"a":2}', False),
        (JsonOutput(json_schema={}), "no json", '{"a":2}', False),
        (JsonOutput(json_schema={}), "", '{"a":2}', False),
    ],
)
def test_which_answers_agree(output: Any, answer: str, truth: str, agreed: bool | None) -> None:
    assert agrees(output, answer, truth) is agreed


def test_an_accepted_answer_is_labelled_and_its_settlement_is_its_own(house: House) -> None:
    asked = house.ask(agent_id="ann", preferences=Preferences(max_cost_usd=Decimal("0.1")),
                      fallback="A", deadline_s=60)  # fmt: skip
    settled = house.settle(asked, ("B", 0.9))
    assert (settled["status"], settled["answer"], settled["answer_lane"]) == (
        "accepted", "B", "tier1",
    )  # fmt: skip
    [audit] = house.audits()
    assert (audit["parent_id"], audit["lane"], audit["propensity"]) == (asked, "tier3", 1.0)
    assert (audit["kind"], audit["prompt"]) == ("question", "What now?")
    assert (audit["fallback"], audit["deadline_at"]) == (None, None)
    assert audit["key"].startswith("audit.")
    assert house.labels() == []

    assert house.settle(audit["id"], ("A", None))["status"] == "accepted"
    assert house.labels() == [("tier1", False, "audit", 1.0)]
    assert house.row(asked) == settled
    assert len(house.audits()) == 1

    [one] = labelled(house.engine)
    assert (one.kind, one.lane, one.model, one.p) == ("question", "tier1", "fast", 0.9)
    assert (one.sound, one.passed, one.correct, one.source) == (True, True, False, Source.AUDIT)


def test_a_check_that_comes_again_neither_audits_twice_nor_loses_the_audit(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [house.ask("sampled") for _ in range(40)]
    for one in ids:
        house.answer(one)
    wanted = {one for one in ids if is_chosen(one, 0.3)}
    assert 0 < len(wanted) < 40

    def dies(*_: object) -> None:
        raise RuntimeError("the checker died before its commit")

    with monkeypatch.context() as patch:
        patch.setattr("ledger.lifecycle.write_verdicts", dies)
        with pytest.raises(RuntimeError):
            house.checker.check(ids)
    assert house.audits() == []
    house.new_checker().check(ids)
    house.new_checker().check(ids)
    assert {a["parent_id"] for a in house.audits()} == wanted
    assert len(house.audits()) == len(wanted)
    assert {a["propensity"] for a in house.audits()} == {0.3}
    sent = {i for r in rows(house.engine, "outbox") if r["queue"] == "tier3"
            for i in r["ids"].replace('"', "").strip("[]").split(", ")}  # fmt: skip
    assert sent == {a["id"] for a in house.audits()}


def test_what_is_not_audited(house: House) -> None:
    for kind, more in (
        ("unaudited", {}),
        ("question", {"preferences": Preferences(privacy=Privacy.HIGH)}),
        ("question", {"expected": "A"}),
    ):
        assert house.settle(house.ask(kind, **more), ("A", 0.9))["status"] == "accepted"
    note = house.ask("note", output=TextOutput())
    assert house.settle(note, ("It is done as agreed.", None))["status"] == "accepted"
    assert house.audits() == []
    assert house.labels() == []


def test_without_the_top_lane_nothing_is_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    alone = House(tmp_path)
    assert alone.settle(alone.ask(), ("A", 0.9))["status"] == "accepted"
    assert alone.audits() == []
    alone.engine.dispose()


def test_climbing_to_the_top_labels_what_was_tried_below(house: House) -> None:
    asked = house.ask()
    settled = house.settle(asked, ("A", 0.51), ("B", 0.52), ("B", None))
    assert (settled["status"], settled["answer_lane"]) == ("accepted", "tier3")
    assert house.labels() == [("tier1", False, "top", 1.0), ("tier2", True, "top", 1.0)]
    assert [one.sound for one in labelled(house.engine)] == [False, False]
    assert house.audits() == []


def test_a_top_answer_that_was_not_sure_labels_all_the_same_but_a_vetoed_one_does_not(
    house: House,
) -> None:
    unsure = house.settle(house.ask(), ("A", 0.51), ("B", 0.52), ("B", 0.51))
    assert unsure["status"] == "degraded"
    assert house.labels() == [("tier1", False, "top", 1.0), ("tier2", True, "top", 1.0)]
    house.settle(house.ask(), ("A", 0.51), ("B", 0.52), ("neither of them", None))
    assert len(house.labels()) == 2


def test_an_audit_of_a_climbed_answer_labels_every_lane_below(house: House) -> None:
    asked = house.ask()
    assert house.settle(asked, ("A", 0.51), ("B", 0.9))["answer_lane"] == "tier2"
    [audit] = house.audits()
    house.settle(audit["id"], ("B", None))
    assert house.labels() == [("tier1", False, "audit", 1.0), ("tier2", True, "audit", 1.0)]


def test_an_audit_that_was_not_sure_labels_all_the_same(house: House) -> None:
    house.settle(house.ask(), ("A", 0.9))
    [audit] = house.audits()
    assert house.settle(audit["id"], ("B", 0.51))["status"] == "degraded"
    assert house.labels() == [("tier1", False, "audit", 1.0)]


def test_an_audit_that_comes_to_nothing_labels_nothing(house: House) -> None:
    house.settle(house.ask(), ("A", 0.9))
    [audit] = house.audits()
    ended = house.settle(audit["id"], ("neither of them", None))
    assert ended["status"] == "dead"
    assert house.labels() == []


def claimed(audits: bool) -> Claimed:
    asked = decision(agent_id="ann", day=3)
    whole = '{"hops": [{"lane": "tier3", "reason": "r"}], "complexity": "simple"}'
    return Claimed("d", "r", asked, "tier3", 0, 1, 0, whole, 0, audits=audits)


def test_an_audit_draws_on_its_own_budget_alone() -> None:
    budget = CloudBudget(per_run_usd=Decimal(10), per_day_usd=Decimal(5), calls_per_agent_day=2)
    audit = Audit(per_day_usd=Decimal("0.25"))
    assert bounds_of(budget, claimed(True), DAY, audit) == (Bound("audit:1970-01-02", 250_000),)
    assert len(bounds_of(budget, claimed(False), DAY, audit)) == 3


def test_no_lower_lane_stands_in_for_the_one_that_audits() -> None:
    questions = Questions(catalog(), "tier3", backend=None, fingerprint="", clock=lambda: 0)  # type: ignore[arg-type]
    assert questions.lower(claimed(False)) is not None
    assert questions.lower(claimed(True)) is None


def figures(house: House) -> Report:
    run = find_run(house.engine, house.run_id)
    assert run is not None
    return report(house.engine, house.settings, house.settings.catalog, run)


def test_a_run_counts_its_audits_apart(house: House) -> None:
    house.settle(house.ask(), ("A", 0.9))
    house.settle(house.ask(), ("B", 0.9))
    house.settle(house.ask(), ("B", 0.9))
    for audit in house.audits()[:2]:
        house.settle(audit["id"], ("A", None))
    found = figures(house)
    assert found.decisions.by_status == {"accepted": 3}
    assert found.unsettled == 0
    audits = found.audits
    assert (audits.asked, audits.open, audits.labelled) == (3, 1, 2)
    assert (audits.agreed, audits.refused) == (1, 0)


def test_cancelling_a_run_ends_its_audits(house: House) -> None:
    house.settle(house.ask(), ("A", 0.9))
    lifecycle.cancel(house.engine, house.clock(), run_id=house.run_id)
    assert [a["status"] for a in house.audits()] == ["cancelled"]
    assert house.labels() == []


def test_a_person_has_the_last_word_and_keeps_the_chance_of_the_draw(house: House) -> None:
    asked = house.ask()
    house.settle(asked, ("B", 0.9))
    [audit] = house.audits()
    house.settle(audit["id"], ("A", None))
    row = type("Row", (), house.row(asked))
    assert by_person(house.engine, row, "B", right=True, now=9) == 1
    assert by_person(house.engine, row, "B", right=True, now=10) == 1
    [one] = labelled(house.engine)
    assert (one.correct, one.source, one.propensity) == (True, Source.PERSON, 1.0)
    assert by_person(house.engine, row, "A", right=False, now=11) == 0
    assert by_person(house.engine, row, "B", right=False, now=12) == 1
    assert [one.correct for one in labelled(house.engine)] == [False]


Word = tuple[str, bool]


def said_by_a_person(house: House, decision_id: str, word: Word) -> None:
    truth, right = word
    row = type("Row", (), house.row(decision_id))
    by_person(house.engine, row, truth, right=right, now=house.clock())


def what_counts(house: House) -> list[tuple[str, bool, str, float | None]]:
    return [(o.lane, o.correct, str(o.source), o.propensity) for o in labelled(house.engine)]


@pytest.mark.parametrize(
    ("word", "audited", "overruled", "counts"),
    [
        (("A", True), "A", False, [("tier1", True, "person"), ("tier2", False, "person")]),
        (("A", True), "B", True, [("tier1", True, "person"), ("tier2", False, "person")]),
        (("B", True), "A", True, [("tier1", False, "person"), ("tier2", True, "person")]),
        (("B", False), "A", False, [("tier1", True, "audit"), ("tier2", False, "person")]),
        (("B", False), "B", True, [("tier2", False, "person")]),
    ],
)
def test_a_person_and_an_audit_say_the_same_in_either_order(
    house: House, word: Word, audited: str, overruled: bool, counts: list[tuple[str, bool, str]]
) -> None:
    """Tier 1 says A and climbs, tier 2 says B and is accepted."""
    for person_first in (True, False):
        asked = house.ask()
        house.settle(asked, ("A", 0.51), ("B", 0.9))
        audit = house.audits()[-1]["id"]
        if person_first:
            said_by_a_person(house, asked, word)
        house.settle(audit, (audited, None))
        if not person_first:
            said_by_a_person(house, asked, word)
    assert what_counts(house) == [(*one, 1.0) for one in counts] * 2
    audits = figures(house).audits
    assert (audits.asked, audits.open, audits.refused) == (2, 0, 0)
    assert (audits.labelled, audits.overruled) == ((0, 2) if overruled else (2, 0))
    top = [s.tried["tier3"].correct for s in tried(house.engine, house.run_id)[0]]
    assert top == [not overruled] * 2


def test_a_late_audit_is_no_second_label_and_never_counts_in_place_of_the_persons(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = house.ask()
    house.settle(asked, ("B", 0.9))
    said_by_a_person(house, asked, ("B", True))
    house.settle(house.audits()[0]["id"], ("B", None))
    assert [label[2] for label in house.labels()] == ["person", "audit"]
    assert what_counts(house) == [("tier1", True, "person", 1.0)]
    monkeypatch.setattr(labels, "MOST", 1)
    assert what_counts(house) == [("tier1", True, "person", 1.0)]


def test_an_audit_without_an_answer_is_refused_and_tells_a_persons_label_no_chance(
    house: House,
) -> None:
    asked = house.ask()
    house.settle(asked, ("B", 0.9))
    said_by_a_person(house, asked, ("A", True))
    lifecycle.cancel(house.engine, house.clock(), ids=[house.audits()[0]["id"]])
    assert what_counts(house) == [("tier1", False, "person", None)]
    audits = figures(house).audits
    assert (audits.asked, audits.labelled, audits.overruled, audits.refused) == (1, 0, 0, 1)


def test_what_the_asker_expects_labels_without_a_row(house: House) -> None:
    house.settle(house.ask(expected="B"), ("A", 0.51), ("B", 0.9))
    found = [(o.lane, o.correct, o.source, o.propensity) for o in labelled(house.engine)]
    assert found == [
        ("tier1", False, Source.EXPECTED, 1.0), ("tier2", True, Source.EXPECTED, 1.0),
    ]  # fmt: skip
    assert house.labels() == []
    assert labelled(house.engine, kind="sampled") == []
    assert labelled(house.engine, after=house.now) == []


def test_an_audited_decision_was_tried_on_the_lane_that_audited_it(house: House) -> None:
    audited = house.ask()
    house.settle(audited, ("A", 0.9))
    share = house.audits()[0]["propensity"]
    house.settle(house.audits()[0]["id"], ("B", 0.9))
    climbed = house.ask()
    house.settle(climbed, ("A", 0.51), ("A", 0.51), ("A", 0.9))
    seen, paid = tried(house.engine, house.run_id)
    found = [({lane: one.correct for lane, one in s.tried.items()}, s.propensity) for s in seen]
    assert not paid
    assert found == [
        ({"tier1": False, "tier3": True}, share),
        ({"tier1": True, "tier2": True, "tier3": True}, 1.0),
    ]


def test_of_decisions_that_nobody_judged_nothing_is_known(house: House) -> None:
    house.settle(house.ask(), ("A", 0.9))
    assert [s.tried for s in tried(house.engine, house.run_id)[0]] == [{}]
