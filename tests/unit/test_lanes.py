"""Lanes out of service: plans and hops avoid them and say so; what waits there goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config.load import load_catalog
from config.settings import Settings
from ledger import lanes, lifecycle, sweeping
from ledger.lanes import ClosedLanes, Standing, closed_lanes, fleet_view
from ledger.planning import Planner
from ledger.runs import start_run
from ledger.workers import Life, announce
from routing.decision import ChoiceOutput, Decision, Preferences, Privacy
from tests.unit.ledgers import claim_one, fresh, planned, rows

PROFILE = Path(__file__).parents[1] / "profiles_scripted.toml"
AB = ChoiceOutput(labels=("A", "B"))
SECOND = 1_000_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = fresh(tmp_path)
    yield engine
    engine.dispose()


def planner(engine: Engine, tmp_path: Path) -> Planner:
    return Planner(Settings(profile=str(PROFILE), data_dir=tmp_path), engine)


def ask(key: str = "k", **wishes: object) -> Decision:
    return Decision(kind="question", prompt="What?", output=AB, key=key,
                    preferences=Preferences(**wishes))  # type: ignore[arg-type]  # fmt: skip


def test_a_lane_that_is_down_is_avoided_and_the_plan_says_why(
    engine: Engine, tmp_path: Path
) -> None:
    [before] = planner(engine, tmp_path).plan([ask()])
    assert before.plan.lanes[:2] == ("tier1", "tier2")
    lanes.take_out(engine, "tier1", Standing.DOWN, "it ran out of luck", "me", 5)
    [after] = planner(engine, tmp_path).plan([ask()])
    assert after.plan.lanes[0] == "tier2"
    assert any("lane tier1 is down: it ran out of luck" in note for note in after.plan.notes)
    lanes.put_back(engine, ["tier1"])
    [again] = planner(engine, tmp_path).plan([ask()])
    assert again.plan == before.plan


def test_where_nothing_else_may_answer_it_waits_and_says_so(engine: Engine, tmp_path: Path) -> None:
    for lane in ("tier1", "tier2"):
        lanes.take_out(engine, lane, Standing.LENT, "GPU 0 is lent", "me", 5)
    [found] = planner(engine, tmp_path).plan([ask(privacy=Privacy.MAXIMUM)])
    assert found.plan.lanes == ("tier1", "tier2")
    assert "waits: lane tier1 is lent: GPU 0 is lent" in found.plan.notes


def test_the_reason_of_the_first_taking_out_stays_until_it_is_another_sort(
    engine: Engine,
) -> None:
    lanes.take_out(engine, "tier1", Standing.DOWN, "first", "me", 5)
    lanes.take_out(engine, "tier1", Standing.DOWN, "second", "me", 9)
    [row] = rows(engine, "lane_standing")
    assert (row["reason"], row["since"]) == ("first", 5)
    lanes.take_out(engine, "tier1", Standing.DRAINING, "third", "me", 9)
    [row] = rows(engine, "lane_standing")
    assert (row["reason"], row["since"]) == ("third", 9)


def test_hops_of_plans_that_are_older_avoid_it_too(engine: Engine) -> None:
    lanes.take_out(engine, "tier2", Standing.DOWN, "gone", "me", 5)
    closed = closed_lanes(engine, load_catalog(str(PROFILE)), 10)
    assert set(closed) == {"tier2"}
    assert closed["tier2"].reason == "lane tier2 is down: gone"
    assert closed["tier2"].down


def test_the_check_knows_of_a_lane_within_a_second_and_reads_no_oftener(engine: Engine) -> None:
    moment = [10 * SECOND]
    seen = ClosedLanes(engine, load_catalog(str(PROFILE)), lambda: moment[0])
    assert seen.find() == {}
    lanes.take_out(engine, "tier2", Standing.DOWN, "gone", "me", 5)
    moment[0] += SECOND - 1
    assert seen.find() == {}
    moment[0] += 1
    assert set(seen.find()) == {"tier2"}
    lanes.put_back(engine, ["tier2"])
    moment[0] -= 5 * SECOND  # the clock was set back
    assert seen.find() == {}


def test_what_waits_on_it_goes_on_and_what_cannot_stays(engine: Engine) -> None:
    run = start_run(engine, mode="test", profile="scripted", now=0).id
    asked = [planned(f"k{n}", *(("tier1", "tier2") if n % 2 else ("tier1",))) for n in range(6)]
    ids = lifecycle.submit(engine, run, asked, now=10).ids
    claim_one(engine, ids[1], "alive", 20, "tier1")
    after, moved = "", []
    for _ in range(10):
        followers, after = sweeping.move_on(
            engine, "tier1", {"tier2"}, "lane tier1 is down", 30, after=after, limit=2
        )
        moved += [one for message in followers.messages for one in message.ids]
        if not after:
            break
    assert sorted(moved) == [ids[3], ids[5]]
    lanes_now = {row["id"]: row["lane"] for row in rows(engine, "decision")}
    assert [lanes_now[one] for one in ids] == [
        "tier1", "tier1", "tier1", "tier2", "tier1", "tier2",
    ]  # fmt: skip


def test_the_view_has_lanes_workers_and_what_waits(engine: Engine) -> None:
    run = start_run(engine, mode="test", profile="scripted", now=0).id
    lifecycle.submit(engine, run, [planned("a", "tier1"), planned("b", "tier1")], now=10 * SECOND)
    announce(engine, Life("t", "tier2-1", "tier2"), "ready")
    lanes.take_out(engine, "tier1", Standing.DOWN, "why", "host:dir", 12 * SECOND)
    row = {"name": "tier1-1", "lane": "tier1", "state": "failed", "placement": "GPU 0",
           "pid": 7, "restarts": 3, "reason": "died"}  # fmt: skip
    lanes.write_supervised(engine, "host:dir", [row], 14 * SECOND)
    found = fleet_view(engine, ["tier1", "tier2"], 15 * SECOND)
    one, two = found.lanes
    assert (one.standing, one.reason, one.waiting, one.oldest_s) == (Standing.DOWN, "why", 2, 5)
    assert (one.since_s, two.standing, two.workers_ready) == (3, None, 1)
    [worker] = found.workers
    assert (worker.state, worker.restarts, worker.reason) == ("failed", 3, "died")
    [late] = fleet_view(engine, [], 50 * SECOND).workers
    assert late.state == "unwatched"
    assert lanes.waiting(engine, 15 * SECOND) == {"tier1": 2, "quality": 0}
    assert lanes.open_work(engine, "tier1", 15 * SECOND) == 2


def test_a_supervisor_leaves_nothing_behind(engine: Engine) -> None:
    lanes.take_out(engine, "tier1", Standing.DOWN, "why", "mine", 1)
    lanes.take_out(engine, "tier2", Standing.DOWN, "why", "other", 1)
    lanes.write_supervised(engine, "mine", [], 1)
    lanes.forget_supervisor(engine, "mine")
    assert lanes.standings(engine) == {"tier2": Standing.DOWN}


def test_a_move_takes_its_time_of_change_along(engine: Engine) -> None:
    row = {"name": "a-1", "lane": "a", "state": "ready", "placement": "", "pid": 1,
           "restarts": 0, "reason": ""}  # fmt: skip
    lanes.write_supervised(engine, "me", [row], 5)
    lanes.write_supervised(engine, "me", [row], 9)
    [kept] = rows(engine, "supervised")
    assert (kept["changed_at"], kept["seen_at"]) == (5, 9)
    lanes.write_supervised(engine, "me", [row | {"pid": 2}], 11)
    assert rows(engine, "supervised")[0]["changed_at"] == 11
