"""Plans that go by experience: what is passed over, and what experience never moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.catalog import Catalog
from ledger.calibrations import REREAD_US
from ledger.lane_history import LaneHistory, count
from routing.decision import Privacy
from routing.learned import Fared, Learned, learn
from routing.policy import plan
from tests.unit.audited_house import House
from tests.unit.catalogs import KINDS, catalog, decision
from tests.unit.ledgers import rows

SECOND = 1_000_000


CENTS = 5_000
"""Micro-dollars of a paid call."""


def tried(lane: str, good: int, *, of: int = 100, kind: str = "next_action", s: int = 1) -> Fared:
    """Answers that took ``s`` seconds each; those of the cloud are paid for."""
    paid = of * CENTS if lane.startswith("tier3") else 0
    return Fared(kind, lane, of, good, paid, of * s * SECOND)


def known(*lanes: Fared, profile: Catalog | None = None) -> Learned:
    return learn(lanes, profile or catalog())


SELDOM = known(tried("tier1", 1), tried("tier2", 90, s=2), tried("tier3", 95))


def lanes(learned: Learned | None, profile: Catalog | None = None, **asked: Any) -> list[str]:
    profile = profile or catalog(without=("tier3.openai",))
    return list(plan(decision(**asked), profile, (), learned).lanes)


def test_a_lane_that_seldom_passes_is_passed_over_in_words() -> None:
    asked, profile = decision(), catalog(without=("tier3.openai",))
    usual = plan(asked, profile, ())
    assert usual.lanes == ("tier1", "tier2", "tier3")
    found = plan(asked, profile, (), SELDOM)
    assert found.lanes == ("tier2", "tier3")
    why = (
        "tier1 is passed over: 1 of its last 100 answers to next_action were good, which is not "
        "worth $0.000100 a try"
    )
    assert found.hops[0].reason == f"starts here: {why}"
    assert found.notes == (*usual.notes, why)
    assert found.hops[1] == usual.hops[2]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([tried("tier1", 80), tried("tier2", 90, s=2), tried("tier3", 95)],
         ["tier1", "tier2", "tier3"]),
        ([tried("tier1", 0, of=29), tried("tier2", 90, s=2), tried("tier3", 95)],
         ["tier1", "tier2", "tier3"]),
        ([tried("tier1", 0)], ["tier1", "tier2", "tier3"]),
        ([tried("tier1", 60), tried("tier2", 5, s=9), tried("tier3", 95)], ["tier1", "tier3"]),
        ([tried("tier1", 90), tried("tier2", 80, s=2), tried("tier3", 10)], ["tier1", "tier3"]),
        ([], ["tier1", "tier2", "tier3"]),
    ],
)  # fmt: skip
def test_what_is_worth_its_cost_or_little_known_stays(
    counts: list[Fared], expected: list[str]
) -> None:
    assert lanes(known(*counts)) == expected


def test_a_poor_lane_is_worth_a_try_below_a_slow_one() -> None:
    poor, best = tried("tier1", 5), tried("tier3", 95)
    assert lanes(known(poor, tried("tier2", 90, s=2), best))[0] == "tier2"
    assert lanes(known(poor, tried("tier2", 90, s=40), best))[0] == "tier1"


@pytest.mark.parametrize(
    "asked",
    [
        {"force_tier": "local_fast"},
        {"kind": "self_critique"},
    ],
)
def test_a_wish_or_a_rule_is_not_moved(asked: dict[str, Any]) -> None:
    kind = asked.get("kind", "next_action")
    learned = known(tried("tier1", 0, kind=kind), tried("tier2", 90, kind=kind))
    assert lanes(learned, **asked) == lanes(None, **asked)
    assert lanes(None, **asked)[0] == "tier1"


def test_an_override_and_a_rule_are_not_moved() -> None:
    override = catalog(routing={"overrides": {"next_action": "local_fast"}})
    assert lanes(SELDOM, override)[0] == "tier1"
    rule = {"when": {"novel": True}, "tier": "local_fast", "reason": "new things are easy"}
    ruled = catalog(routing={"rules": [rule]})
    assert lanes(SELDOM, ruled, novel=True)[0] == "tier1"
    assert lanes(SELDOM, ruled)[0] == "tier2"


def test_private_decisions_stay_home_and_certified_kinds_keep_their_lanes() -> None:
    poor = known(tried("tier1", 0), tried("tier2", 50), tried("tier3", 100))
    assert lanes(poor, privacy=Privacy.MAXIMUM) == ["tier2"]
    kinds = KINDS | {"next_action": {"tier": "local_fast", "certified": True}}
    certified = catalog(kinds=kinds, without=("tier3.openai",))
    assert lanes(poor, certified) == ["tier1", "tier2", "tier3"]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    opened = House(tmp_path)
    yield opened
    opened.engine.dispose()


def test_the_ledger_counts_verdicts_less_what_was_found_wrong(house: House) -> None:
    for label, audited in (("A", "A"), ("B", "A"), ("A", None)):
        house.settle(house.ask("question"), (label, 0.9))
        if audited is not None:
            house.settle(house.audits()[-1]["id"], (audited, None))
    house.settle(house.ask("question"), ("A", 0.51), ("A", 0.51), ("A", None))
    count(house.engine, house.clock())
    found = {r["lane"]: (r["tried"], r["good"]) for r in rows(house.engine, "lane_history")}
    assert found == {"tier1": (4, 2), "tier2": (1, 0), "tier3": (1, 1)}
    count(house.engine, house.clock())
    assert len(rows(house.engine, "lane_history")) == 3


def test_an_error_found_by_lot_stands_for_those_that_nobody_looked_for(house: House) -> None:
    for _ in range(40):
        house.settle(house.ask("sampled"), ("B", 0.9))
    for audit in house.audits()[:3]:
        house.settle(audit["id"], ("A", None))
    count(house.engine, house.clock())
    found = {r["lane"]: (r["tried"], r["good"]) for r in rows(house.engine, "lane_history")}
    assert found == {"tier1": (40, 30)}
    for audit in house.audits()[3:]:
        house.settle(audit["id"], ("A", None))
    count(house.engine, house.clock())
    [all_wrong] = rows(house.engine, "lane_history")
    assert all_wrong["good"] == max(0, 40 - round(len(house.audits()) / 0.3))


def test_what_was_counted_is_read_once_a_minute_where_the_profile_learns(house: House) -> None:
    asked = house.settings.catalog
    assert LaneHistory(house.engine, asked, house.clock).learned() is None
    routing = asked.routing.model_copy(update={"learn": True})
    history = LaneHistory(house.engine, asked.model_copy(update={"routing": routing}), house.clock)
    first = history.learned()
    assert first is not None
    assert first.tried == {}
    house.settle(house.ask("question"), ("A", 0.9))
    count(house.engine, house.clock())
    assert history.learned() is first
    house.now += REREAD_US
    again = history.learned()
    assert again is not None
    assert again.tried["question", "tier1"].tried == 1
