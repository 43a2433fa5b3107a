"""Usage records of a real ledger: they agree with its reports, and with their own log."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import insert, text, update

from ledger.clock import now
from ledger.database import reading, writing
from ledger.outbox import new_id
from ledger.reports import report
from ledger.spending import critics, overruns
from ledger.tables import TABLES
from ledger.usage import Place, Role, Selection, Usage
from ledger.usage_records import Lanes, calls_query, uncalled_query, usage_records
from producers.costs_log import Format, write_log
from producers.costs_reading import LogReader
from producers.costs_sums import By, Totals, sum_up
from producers.costs_targets import Word, api_use, hold, is_met
from routing.decision import TextOutput
from tests.unit.costs_house import AB, CostsHouse

ATTEMPTS = TABLES.tables["attempt"]
BUDGETS = TABLES.tables["budget"]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CostsHouse]:
    """A house that nothing more happens in."""
    house = CostsHouse(tmp_path_factory.mktemp("costs"))
    house.live()
    yield house
    house.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[CostsHouse]:
    opened = CostsHouse(tmp_path)
    yield opened
    opened.close()


def records(house: CostsHouse, chosen: Selection = Selection()) -> list[Usage]:  # noqa: B008
    with usage_records(house.engine, chosen, Lanes()) as found:
        return list(found)


def totals(house: CostsHouse, chosen: Selection = Selection(), by: By | None = None) -> Totals:  # noqa: B008
    catalog = house.catalog
    assert catalog.reference_model is not None
    return sum_up(
        records(house, chosen),
        [catalog.models[catalog.reference_model].price],
        [] if by is None else [by],
    )


def test_the_sums_are_those_of_the_runs_report(lived: CostsHouse) -> None:
    told = report(lived.engine, lived.settings, lived.catalog, lived.info)
    found = totals(lived, Selection(run=lived.run), By.LANE)
    every = found.everything
    assert every.cost == Decimal(str(told.cost_usd)) * 1_000_000
    assert told.cost_usd > 0
    assert [micros / 1_000_000 for micros in every.api] == [told.all_cloud_cost_usd]
    assert (every.tokens_in, every.tokens_cached, every.tokens_out) == tuple(
        told.tokens[name] for name in ("input", "cached", "output")
    )
    calls = {lane: one.calls for lane, one in found.groups[By.LANE].items() if one.calls}
    assert calls == {lane: use.attempts for lane, use in told.lanes.items()}
    assert every.answers + every.uncalled.total() == told.decisions.total


def test_every_role_is_counted_apart(lived: CostsHouse) -> None:
    found = totals(lived)
    calls = {role: one.calls for role, one in found.roles.items()}
    assert {role: calls[role] for role in Role if role is not Role.QUESTION} == {
        Role.CRITIQUE: 2, Role.VOTE: 1, Role.CLASSIFICATION: 1, Role.AUDIT: 1,
    }  # fmt: skip
    assert sum(calls.values()) == found.everything.calls
    audit = found.role(Role.AUDIT)
    assert (audit.answers, audit.api, audit.cost) == (0, [0], 2)
    assert sum(one.cost for one in found.roles.values()) == found.everything.cost


def test_routing_and_falling_back_are_told_apart(lived: CostsHouse) -> None:
    asked = totals(lived).role(Role.QUESTION)
    # Two were routed there; three hard ones, a broken one and a lost vote fell back to it.
    assert (asked.routed, asked.fell_back) == (2, 5)
    kinds = Counter(one.kind for one in records(lived) if one.fallback and one.success)
    assert kinds == {"easy": 4, "voted": 1}
    [failed] = [one for one in records(lived) if one.place is Place.API and not one.success]
    assert (failed.planned, failed.last, failed.api_in) == (Place.LOCAL, False, 0)


def test_a_decision_counts_once_for_the_api_alone(lived: CostsHouse) -> None:
    counted = Counter(one.decision for one in records(lived) if one.api_in + one.api_out)
    assert set(counted.values()) == {1}
    questions = {one.decision for one in records(lived) if one.role is Role.QUESTION}
    assert set(counted) == questions


def test_savings_do_not_grow_with_what_the_tiers_ask_themselves(house: CostsHouse) -> None:
    house.ask("voted", "vote", AB)
    house.ask("note", "note it", TextOutput())
    asked = [one for one in records(house) if one.role is not Role.QUESTION]
    assert {one.role for one in asked} == {Role.VOTE, Role.CRITIQUE}
    assert all(one.success for one in asked)
    assert sum(one.api_in + one.api_out for one in asked) == 0
    told = report(house.engine, house.settings, house.catalog, house.info)
    [micros] = totals(house).everything.api
    assert micros / 1_000_000 == told.all_cloud_cost_usd


def test_what_no_call_answered_is_there_with_how_it_ended(lived: CostsHouse) -> None:
    [cached] = [one for one in records(lived) if one.place is None]
    assert (cached.outcome, cached.attempt, cached.cost, cached.tokens_in) == ("cached", "", 0, 0)
    assert (cached.lane, cached.tier, cached.model) == ("tier1", "low", "fast")
    assert (cached.api_in, cached.api_out) == (len("easy 0") // 4, 1)
    assert totals(lived).everything.uncalled == {"cached": 1}


def test_a_log_says_what_the_ledger_says(lived: CostsHouse) -> None:
    prices = [lived.catalog.models["cloud"].price]
    for form in Format:
        file = io.StringIO(newline="")
        count = write_log(iter(records(lived)), file, form)
        reader = LogReader(io.BytesIO(file.getvalue().encode()), form)
        assert sum_up(reader, prices, [By.DAY]) == totals(lived, by=By.DAY)
        assert (reader.good, reader.malformed) == (count, 0)


def test_groups_add_up_to_the_whole(lived: CostsHouse) -> None:
    for by in By:
        found = totals(lived, by=by)
        assert sum(one.calls for one in found.groups[by].values()) == found.everything.calls
        assert sum(one.cost for one in found.groups[by].values()) == found.everything.cost
        assert sum(one.api[0] for one in found.groups[by].values()) == found.everything.api[0]
    assert set(totals(lived, by=By.TIER).groups[By.TIER]) == {"low", "high"}


def test_selections_divide_the_records(house: CostsHouse) -> None:
    first = house.run
    house.ask("easy", "easy one", AB)
    house.ask("routed", "one", AB)
    between = now()
    second = house.start()
    house.ask("easy", "hard one", AB)
    house.ask("easy", "easy one", AB, key="again")
    whole = Counter(one.decision for one in records(house))
    for parts in (
        [Selection(run=first), Selection(run=second)],
        [Selection(kind="easy"), Selection(kind="routed")],
    ):
        divided = [Counter(one.decision for one in records(house, part)) for part in parts]
        assert sum(divided, Counter()) == whole
        assert all(divided)
    late = records(house, Selection(since=between))
    assert {one.run for one in late} == {second}
    assert len(late) == 3
    assert records(house, Selection(since=now())) == []


def test_a_charge_that_nobody_knows_of_counts_at_its_most(house: CostsHouse) -> None:
    decision = house.submit("routed", "under way", AB)
    row = {"id": new_id(), "decision_id": decision, "lane": "tier3", "number": 1,
           "model": "cloud", "outcome": "intent", "estimated_micros": 700, "created_at": now(),
           "cost_micros": 0, "raw": "", "error": "", "fingerprint": "", "scopes": "[]",
           "truncated": False, "tokens_in": 0, "tokens_out": 0, "tokens_cached": 0,
           "waiting_us": 0, "inference_us": 0}  # fmt: skip
    with writing(house.engine) as connection:
        connection.execute(insert(ATTEMPTS), [row])
    every = totals(house).everything
    assert (every.cost, every.unknown, every.unknown_charges) == (0, 700, 1)
    assert every.uncalled == {"queued": 1}
    found = held(house)
    assert found["cost a week"].measured == pytest.approx(0.0007)
    assert "unknown" in found["cost a week"].note


def test_lanes_of_a_profile_that_is_gone_have_no_tier(house: CostsHouse) -> None:
    house.ask("routed", "one", AB)
    house.ask("easy", "easy one", AB)
    Path(house.settings.profile).unlink()
    lanes = Lanes()
    with usage_records(house.engine, Selection(), lanes) as found:
        seen = {one.lane: (one.tier, one.place) for one in found}
    assert seen == {"tier3": ("unknown", Place.API), "tier1": ("unknown", Place.LOCAL)}
    assert lanes.unreadable == [house.settings.profile]


@pytest.mark.parametrize("chosen", [Selection(), Selection(run="x"), Selection(since=1, kind="x")])
def test_sqlite_sorts_nothing_in_memory(lived: CostsHouse, chosen: Selection) -> None:
    with reading(lived.engine) as connection:
        for query in (calls_query(chosen, sort=chosen.run is None), uncalled_query(chosen)):
            words = str(query.compile(lived.engine, compile_kwargs={"literal_binds": True}))
            plan = connection.execute(text("explain query plan " + words.replace(":", "\\:"))).all()
            assert plan
            assert not [row for row in plan if "TEMP B-TREE" in row.detail]


def held(house: CostsHouse, chosen: Selection = Selection()):  # type: ignore[no-untyped-def]  # noqa: B008
    found = hold(house.catalog.targets, totals(house, chosen), overruns(house.engine, chosen),
                 critics(house.engine, chosen))  # fmt: skip
    return {one.name: one for one in found}


def test_targets_of_a_run(lived: CostsHouse) -> None:
    found = held(lived, Selection(run=lived.run))
    words = {name: one.word for name, one in found.items()}
    assert words == {
        "cost a week": Word.MET, "savings": Word.MET, "budgets overrun": Word.MET,
        "latency": Word.MET, "pass rate": Word.MISSED, "fell back to the API": Word.MISSED,
        "local calls": Word.MET, "score": Word.MET, "critics said yes": Word.MISSED,
    }  # fmt: skip
    use = api_use(totals(lived))
    assert (use.routed, use.fell_back) == (2, 5)
    assert found["fell back to the API"].measured == pytest.approx(5 / (use.answered - 2))
    assert found["critics said yes"].measured == 0.5
    assert found["budgets overrun"].of >= 1
    assert not is_met(list(found.values()))


def test_nothing_is_measured_of_nothing(house: CostsHouse) -> None:
    found = held(house)
    assert {one.word for one in found.values()} == {Word.NOT_MEASURED}
    assert {one.measured for one in found.values()} == {None}
    assert is_met(list(found.values()))


def test_what_is_not_there_is_not_measured_beside_what_is(house: CostsHouse) -> None:
    house.ask("note", "note it", TextOutput())
    found = held(house)
    missing = {name for name, one in found.items() if one.word is Word.NOT_MEASURED}
    assert missing == {"budgets overrun"}
    assert is_met(list(found.values()))


@pytest.mark.parametrize(
    ("scope", "ours"),
    [
        ("run:{run}", True), ("agent:{run}:ann:1", True), ("request:{decision}", True),
        ("day:2999-01-01", True), ("audit:2999-01-01", True), ("day:2001-01-01", False),
        ("payer:ann", True), ("payer:ann:2999-01-01", True), ("payer:ann:2001-01-01", False),
        ("run:other", False), ("agent:other:ann:1", False), ("request:other", False),
    ],
)  # fmt: skip
def test_an_overrun_budget_is_found_where_it_belongs(
    house: CostsHouse, scope: str, ours: bool
) -> None:
    settled = house.submit("routed", "one", AB)
    house.work()
    name = scope.format(run=house.run, decision=settled)
    row = {"scope": name, "limit_micros": 10, "spent_micros": 11, "reserved_micros": 0, "calls": 1,
           "limit_calls": None}  # fmt: skip
    with writing(house.engine) as connection:
        if scope == "run:{run}":
            connection.execute(update(BUDGETS).where(BUDGETS.c.scope == name).values(**row))
        else:
            connection.execute(insert(BUDGETS), [row])
    recent = overruns(house.engine, Selection(since=now() - 60_000_000))
    assert (recent.scopes, recent.exceeded) == (((name,), 1) if ours else ((), 0))
    assert recent.bounded >= 1
    assert overruns(house.engine, Selection()).exceeded == 1
    of_run = overruns(house.engine, Selection(run=house.run))
    assert of_run.exceeded == (ours and not name.startswith(("day:", "audit:", "payer:")))


def test_too_many_calls_are_an_overrun_too(house: CostsHouse) -> None:
    row = {"scope": f"agent:{house.run}:ann:1", "limit_micros": None, "spent_micros": 0,
           "reserved_micros": 0, "calls": 3, "limit_calls": 2}  # fmt: skip
    with writing(house.engine) as connection:
        connection.execute(insert(BUDGETS), [row])
    assert overruns(house.engine, Selection(run=house.run)).exceeded == 1
