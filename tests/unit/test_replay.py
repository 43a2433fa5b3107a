"""Replays on a real ledger: what is asked again, what cannot be, and what changed."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from config.catalog import Catalog
from ledger import lifecycle, outbox
from ledger.clock import now
from ledger.planning import Planner
from ledger.recorded import Pair, Told, count_recorded, pairs, recorded, unfinished
from ledger.runs import finish_run, start_run
from producers.replay import Comparison, as_replayed, compare, why_unfit
from routing.decision import (
    CacheScope,
    ChoiceOutput,
    Decision,
    JsonOutput,
    Output,
    Payer,
    Preferences,
    Privacy,
    TextOutput,
)
from tests.unit.catalogs import catalog, decision
from tests.unit.house import House
from tests.unit.ledgers import rows

AB = ChoiceOutput(labels=("A", "B"))
PROFILE = """
[lanes.one]
tier = "low"
model = "fast"
[lanes.two]
tier = "high"
model = "slow"
[models.fast]
backend = "scripted"
[models.fast.script]
lines = [
  { contains = "unsure", answer = "A", p = 0.51 },
  { kind = "pick", answer = "A" },
  { kind = "self_critique", answer = "yes" },
]
[models.slow]
backend = "scripted"
[models.slow.script]
lines = [{ kind = "pick", answer = "B" }]
[kinds.pick]
tier = "low"
output = "choice"
labels = ["A", "B"]
[kinds.note]
tier = "low"
output = "text"
critique = true
[kinds.self_critique]
tier = "low"
output = "choice"
labels = ["yes", "no"]
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path, PROFILE)
    yield opened
    opened.close()


def ask(house: House, run: str, *asked: Decision) -> None:
    planned = Planner(house.settings, house.engine).plan(asked)
    written = lifecycle.submit(house.engine, run, planned, now())
    outbox.publish(house.engine, written.messages, house.waiting.append)
    house.work()


def pick(key: str, **more: Any) -> Decision:
    fields: dict[str, Any] = {"prompt": f"Which of {key}?", "kind": "pick", "output": AB} | more
    return Decision(key=key, **fields)


def replayed(house: House, tier: str | None = None) -> tuple[str, Comparison]:
    other = start_run(house.engine, mode="replay", profile="house", now=1).id
    again = [as_replayed(one, tier) for one in recorded(house.engine, house.run)]
    ask(house, other, *again)
    shop = house.settings.catalog
    found = compare(
        pairs(house.engine, house.run, other),
        runs=(house.run, other), profiles=("house", "house"), catalogs=(shop, shop),
    )  # fmt: skip
    return other, found


def test_a_decision_comes_back_as_it_was_asked(house: House) -> None:
    wishes = Preferences(privacy=Privacy.HIGH, own_sample=True)
    asked = pick("a", system="Choose.", seed=4, expected="B", preferences=wishes, fallback="A")
    ask(house, house.run, asked)
    assert list(recorded(house.engine, house.run)) == [asked]
    again = as_replayed(asked, None)
    assert again.preferences == wishes.model_copy(update={"cache": CacheScope.OFF})
    assert again.system == "Choose."


def test_a_replay_spends_nothing_of_those_who_asked_first() -> None:
    payer = Payer(name="customer", budget_usd=Decimal(1))
    again = as_replayed(pick("a", preferences=Preferences(payer=payer)), None)
    assert again.preferences.payer is None


def test_questions_about_answers_are_not_asked_again(house: House) -> None:
    ask(house, house.run, pick("a", kind="note", output=TextOutput()))
    kinds = [row["kind"] for row in rows(house.engine, "decision")]
    assert sorted(kinds) == ["note", "self_critique"]
    assert [one.key for one in recorded(house.engine, house.run)] == ["a"]
    assert count_recorded(house.engine, house.run) == {"note": 1}


def test_kinds_and_a_limit_narrow_it_over_pages(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.recorded.PAGE", 3)
    note = pick("n", kind="note", output=TextOutput())
    ask(house, house.run, *(pick(f"k{i}") for i in range(8)), note)
    keys = [one.key for one in recorded(house.engine, house.run, ["pick"], 7)]
    assert keys == [f"k{i}" for i in range(7)]
    assert len(list(recorded(house.engine, house.run))) == 9
    assert replayed(house)[1].compared == 9


def test_the_same_configuration_changes_nothing(house: House) -> None:
    ask(house, house.run, pick("a", expected="A"), pick("b", expected="B"))
    _, found = replayed(house)
    assert (found.compared, found.same, found.changed, found.changes) == (2, 2, 0, [])
    assert found.before.accuracy == found.after.accuracy == 0.5
    assert found.before.by_tier == found.after.by_tier == {"low": 2}


def test_another_tier_changes_answers_accuracy_and_shares(house: House) -> None:
    note = pick("n", kind="note", output=TextOutput())
    ask(house, house.run, pick("a", expected="B"), pick("b"), note)
    _, found = replayed(house, "high")
    assert (found.compared, found.known) == (3, 1)
    assert found.by_kind["pick"].changed == 2
    assert (found.before.accuracy, found.after.accuracy) == (0.0, 1.0)
    assert found.after.by_tier == {"high": 3}
    first = found.changes[0]
    assert (first.key, first.before.answer, first.after.answer) == ("a", "A", "B")
    assert first.expected == "B"
    assert found.by_status == {"accepted -> accepted": 3}


def test_a_status_alone_is_listed_but_no_other_answer(house: House) -> None:
    ask(house, house.run, pick("unsure"))
    other = start_run(house.engine, mode="replay", profile="house", now=1).id
    ask(house, other, pick("unsure", prompt="Which, surely?"))
    found = compare(
        pairs(house.engine, other, house.run), runs=("x", "y"), profiles=("p", "q"),
        catalogs=(None, house.settings.catalog),
    )  # fmt: skip
    assert found.changed == 1  # the second lane said B
    assert found.before.by_tier == {"one": 1}  # of a profile that is gone the lane is left
    assert found.after.by_tier == {"high": 1}


@pytest.mark.parametrize(("many", "p50", "p95"), [(1, 1, 1), (2, 1, 2), (20, 10, 19), (21, 11, 20)])
def test_quantiles_of_a_side_are_nearest_ranks(many: int, p50: int, p95: int) -> None:
    def told(number: int) -> Told:
        return Told(f"d{number}", f"k{number}", "note", "accepted", "A", None, 0, 0, 1000 * number)

    found = compare(
        [Pair(None, TextOutput(), told(n), told(n)) for n in range(many, 0, -1)],
        runs=("a", "b"), profiles=("p", "p"), catalogs=(None, catalog()),
    )  # fmt: skip
    assert (found.after.settled_ms_p50, found.after.settled_ms_p95) == (p50, p95)


def test_json_is_the_same_by_its_values(house: House) -> None:
    schema: dict[str, Any] = {"type": "object"}
    one = pick("j", kind="note", output=JsonOutput(json_schema=schema))
    ask(house, house.run, one)
    _, found = replayed(house)
    assert found.same == 1


def shop_with(**pick_kind: Any) -> Catalog:
    return catalog(kinds={"pick": {"tier": "local_fast", **pick_kind}})


@pytest.mark.parametrize(
    ("kind", "output", "wishes", "before", "says"),
    [
        ("pick", AB, {}, True, None),
        ("pick", ChoiceOutput(labels=("A", "C")), {}, True, "label 'C' is none of kind 'pick'"),
        ("pick", TextOutput(), {}, True, None),
        ("next_action", AB, {}, True, "kind 'next_action' is not in profile"),
        ("chat", TextOutput(), {}, True, None),
        ("next_action", AB, {}, False, "kind 'next_action' is not in profile"),
        ("pick", AB, {"force_tier": "moon"}, True, "force_tier 'moon'"),
        ("pick", AB, {"adapter": "poet"}, True, "adapter 'poet'"),
    ],
)
def test_what_the_other_profile_cannot_ask_is_told_in_one_line(
    kind: str, output: Output, wishes: dict[str, Any], before: bool, says: str | None
) -> None:
    asked = decision(kind, output=output, **wishes)
    old = catalog() if before else None
    why = why_unfit(asked, shop_with(labels=["A", "B"]), (), old)
    assert (why is None) if says is None else (why is not None and says in why)


def test_an_unfinished_replay_is_found_by_what_it_asks(house: House) -> None:
    config: dict[str, Any] = {"source": house.run, "kinds": [], "limit": None, "tier": None}
    begun = start_run(house.engine, mode="replay", profile="house", now=5, config=config)
    assert unfinished(house.engine, "replay", "house", config) == begun
    assert unfinished(house.engine, "replay", "house", config | {"limit": 3}) is None
    assert unfinished(house.engine, "replay", "other", config) is None
    finish_run(house.engine, begun.id, 9)
    assert unfinished(house.engine, "replay", "house", config) is None
