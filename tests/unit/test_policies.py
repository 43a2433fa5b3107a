"""Learnt policies in production: adopted, gone by in plans and checks, lapsed, retired."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from cli.main import run
from cli.sources import of_run
from config.load import AbsentLane
from ledger import cache, calibrations, policies
from ledger.cache import Cached
from ledger.calibrations import Calibrated, Subject
from ledger.certificates import REREAD_US
from ledger.policies import Kept, Policies, Standing, in_force
from ledger.trail import trail
from routing import drift
from routing.attempts import Attempts
from routing.certify import Scope
from routing.confidence import Correction
from routing.decision import Preferences, Privacy
from routing.evaluation import ESCALATING, evaluate
from routing.guarantee import Goal
from routing.learnt import Learnt, from_json
from tests.unit.audited_house import PROFILE, House
from tests.unit.ledgers import rows
from tests.unit.test_certificates import kept as certificate
from tests.unit.test_certificates import put as put_certificate
from tests.unit.tried_runs import LANES, sayings, tried_run
from workers.learning import Learning
from workers.policies import adopt, watch

GOAL = Goal(1.0, 0.1)
KINDS = {
    "question": sayings(1, 600, {"tier2": 0.8}),
    "unaudited": sayings(2, 600, {"tier1": 0.5}),
    "certain": sayings(3, 60, {}),
}
STARTS = {"question": "tier1", "unaudited": "tier2"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Taught:
    """What the run taught, and the rows that it was scored on."""

    learnt: Learnt
    test: Attempts


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTHROPIC_API_KEY", "sk-test")
        teacher = House(tmp_path_factory.mktemp("teacher"))
        tried_run(teacher, "r", KINDS)
        source = of_run(teacher.settings, "r", 0, adopt=True)
        teacher.engine.dispose()
    test = source.rows.take(~source.calibration)
    found = evaluate(source.rows.take(source.calibration), test, GOAL).learnt
    assert found is not None
    return Taught(found, test)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UPTIER_PROFILE", str(PROFILE))
    opened = House(tmp_path)
    yield opened
    opened.engine.dispose()


def scopes(**change: str) -> tuple[Scope, ...]:
    models = dict(zip(LANES, ("fast", "quality", "cloud-model"), strict=True))
    return tuple(
        replace(Scope(kind, lane, model, f"f.{model}", ""), **change)
        for kind in STARTS
        for lane, model in models.items()
    )


def put(house: House, taught: Taught, *served: Scope) -> Kept:
    """The policy in force; it and the house's readers know it."""
    still = {kind: drift.begin([0.9] * 100).as_json() for kind in STARTS}
    one = Kept("r", 1.0, 0.1, 600, STARTS, served or scopes(), house.clock(), still)
    found = policies.store(house.engine, one, taught.learnt, house.clock())
    house.now += REREAD_US
    return replace(one, id=found)


def lanes(house: House, decision_id: str) -> list[str]:
    return [hop["lane"] for hop in json.loads(house.row(decision_id)["plan"])["hops"]]


def notes(house: House, decision_id: str) -> list[str]:
    found: list[str] = json.loads(house.row(decision_id)["plan"])["notes"]
    return found


def tried(house: House, decision_id: str) -> list[str]:
    return [attempt.lane for attempt in trail(house.engine, decision_id).attempts]


def said(taught: Taught, row: int) -> dict[str, tuple[str, float]]:
    """What the lanes said in a row."""
    test = taught.test
    return {
        lane: (test.answers[test.answer[row, place]], float(test.confidence[row, place]))
        for place, lane in enumerate(test.models)
    }


def serve(house: House, kind: str, told: dict[str, tuple[str, float]], **more: Any) -> Row:
    """A decision whose lanes say this, asked and checked by the worker's code until it settles."""
    asked = house.ask(kind, **more)
    while (row := house.row(asked))["state"] != "settled":
        house.answer(asked, *told[row["lane"]])
        house.checker.check([asked])
    return row


def case(taught: Taught, start: str, above: str, *, keeps: bool) -> tuple[str, dict[str, Any]]:
    """A kind and what the lanes say, such that the policy climbs so and keeps the lower answer."""
    test, learnt = taught.test, taught.learnt
    for place in range(len(test)):
        kind, told = test.kinds[test.kind[place]], said(taught, place)
        if learnt.starts[kind] != start or learnt.next(start, kind, *told[start]) != above:
            continue
        if learnt.keeps_lower(kind, (start, *told[start]), (above, *told[above])) is keeps:
            return kind, told
    raise AssertionError(f"no row climbs from {start} to {above}")


def test_serving_row_by_row_does_what_scoring_all_together_said(
    house: House, taught: Taught
) -> None:
    put(house, taught)
    learnt, test = taught.learnt, taught.test
    price, starts = learnt.path.prices[learnt.price], learnt.path.starts[learnt.price]
    scored = learnt.path.scored(test).at(price, starts)
    kept_lower = dict.fromkeys(range(len(test)), False)
    seen: set[tuple[str, str, bool]] = set()
    for step in learnt.path.steps:
        here = (starts[test.kind] == step.below) & (scored.last == step.above)
        kept_lower |= {int(row): True for row in np.flatnonzero(here & step.keeps_lower(test))}
    for place in range(len(test)):
        kind, told = test.kinds[test.kind[place]], said(taught, place)
        row = serve(house, kind, told)
        begun, last = learnt.starts[kind], test.models[scored.last[place]]
        path = tried(house, row["id"])
        assert path == ([begun] if begun == last else [begun, last])
        whose = begun if kept_lower[place] else last
        assert (row["status"], row["answer_lane"], row["answer"]) == (
            "accepted", whose, told[whose][0],
        )  # fmt: skip
        assert test.correct[place, test.models.index(whose)] == scored.correct[place]
        assert row["p_answer"] == pytest.approx(told[whose][1], abs=1e-6)
        seen.add((begun, last, kept_lower[place]))
    assert seen == {
        ("tier1", "tier1", False), ("tier2", "tier2", False),
        ("tier1", "tier2", False), ("tier1", "tier3", False), ("tier2", "tier3", False),
        ("tier1", "tier2", True), ("tier1", "tier3", True), ("tier2", "tier3", True),
    }  # fmt: skip


def test_what_is_kept_as_json_says_the_same_of_every_row(taught: Taught) -> None:
    learnt = taught.learnt
    again = from_json(json.loads(json.dumps(learnt.as_json())))
    assert (again.starts, again.models) == (learnt.starts, learnt.models)
    rng = np.random.default_rng(5)
    for _ in range(300):
        kind = str(rng.choice(learnt.kinds))
        a, b = (str(rng.choice(["A", "B", "C"])) for _ in range(2))
        p, q = (None if rng.random() < 0.1 else float(rng.random()) for _ in range(2))
        for model in learnt.path.models:
            assert again.next(model, kind, a, p) == learnt.next(model, kind, a, p)
        for low, high in itertools.permutations(learnt.path.models, 2):
            below, above = (low, a, p), (high, b, q)
            assert again.keeps_lower(kind, below, above) == learnt.keeps_lower(kind, below, above)
    assert json.dumps(again.as_json()) == json.dumps(learnt.as_json())
    with pytest.raises(ValueError, match="form 2"):
        from_json({"form": 2})


def test_a_plan_begins_where_the_policy_says_and_says_so(house: House, taught: Taught) -> None:
    assert lanes(house, house.ask("unaudited")) == ["tier1", "tier2", "tier3"]
    put(house, taught)
    asked = house.ask("unaudited")
    word = "the policy learnt from run r begins unaudited on tier2"
    assert lanes(house, asked) == ["tier2", "tier3"]
    assert json.loads(house.row(asked)["plan"])["hops"][0]["reason"] == f"starts here: {word}"
    assert word in notes(house, asked)
    assert lanes(house, house.ask("certain"))[0] == "tier1"
    assert lanes(house, house.ask("sampled"))[0] == "tier1"


@pytest.mark.parametrize(
    "wish",
    [
        {"force_tier": "local_fast"},
        {"force_tier": "cloud"},
        {"strategy": "quality"},
        {"strategy": "cost"},
    ],
)
def test_wishes_win_over_the_policy(house: House, taught: Taught, wish: dict[str, str]) -> None:
    before = house.ask("question", preferences=Preferences(**wish))
    put(house, replace(taught, learnt=begun_on(taught.learnt, "tier2")))
    after = house.ask("question", preferences=Preferences(**wish))
    assert house.row(after)["plan"] == house.row(before)["plan"]
    assert lanes(house, house.ask("question")) == ["tier2", "tier3"]


def test_nothing_is_added_to_a_plan_and_private_decisions_stay_home(
    house: House, taught: Taught
) -> None:
    put(house, replace(taught, learnt=begun_on(taught.learnt, "tier3")))
    asked = house.ask("question")
    assert lanes(house, asked) == ["tier3"]
    for privacy in (Privacy.HIGH, Privacy.MAXIMUM):
        private = house.ask("question", preferences=Preferences(privacy=privacy))
        assert lanes(house, private) == ["tier1", "tier2"]
        assert any(
            "which this decision may not be asked on" in one for one in notes(house, private)
        )


def begun_on(learnt: Learnt, lane: str) -> Learnt:
    """The same policy, but that every kind begins on this lane."""
    starts = np.full_like(learnt.path.starts, learnt.path.models.index(lane))
    return replace(learnt, path=replace(learnt.path, starts=starts))


def test_a_private_decision_that_the_policy_sends_to_the_cloud_climbs_at_home(
    house: House, taught: Taught
) -> None:
    put(house, taught)
    kind, told = case(taught, "tier1", "tier3", keeps=False)
    private = Preferences(privacy=Privacy.HIGH)
    row = serve(house, kind, told, preferences=private)
    assert tried(house, row["id"]) == ["tier1", "tier2"]
    kind, told = case(taught, "tier2", "tier3", keeps=False)
    row = serve(house, kind, told, preferences=private)
    assert (tried(house, row["id"]), row["status"]) == (["tier2"], "degraded")
    assert f"the policy learnt from run r asks tier3 after '{told['tier2'][0]}'" in row["reason"]


def test_a_climb_passes_the_lanes_between_and_the_reasons_say_by_whom(
    house: House, taught: Taught
) -> None:
    put(house, taught)
    kind, told = case(taught, "tier1", "tier3", keeps=True)
    row = serve(house, kind, told)
    assert tried(house, row["id"]) == ["tier1", "tier3"]
    why = "the policy learnt from run r keeps the answer of tier1 over that of tier3"
    assert (row["reason"], row["answer"], row["answer_lane"]) == (why, told["tier1"][0], "tier1")
    lower, upper = [a.verdict for a in trail(house.engine, row["id"]).attempts if a.verdict]
    assert (lower.passed, lower.sound, lower.asks) == (False, True, "tier3")
    assert (upper.passed, upper.sound, upper.issues) == (False, True, (why,))
    kind, told = case(taught, "tier1", "tier3", keeps=False)
    row = serve(house, kind, told)
    assert row["reason"].endswith("kept by the policy learnt from run r after tier1")


def test_a_lane_that_is_shut_is_replaced_by_the_ordinary_next_one(
    house: House, taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(house, taught)
    shut = {"tier3": AbsentLane("tier3", "cloud", "its breaker is open")}
    monkeypatch.setattr("workers.checking.ClosedLanes.find", lambda _: shut)
    kind, told = case(taught, "tier1", "tier3", keeps=False)
    row = serve(house, kind, told)
    assert tried(house, row["id"]) == ["tier1", "tier2"]
    below, above = (("tier1", *told["tier1"]), ("tier2", *told["tier2"]))
    whose = "tier1" if taught.learnt.keeps_lower(kind, below, above) else "tier2"
    assert (row["status"], row["answer_lane"]) == ("accepted", whose)


def test_what_fails_the_rubric_climbs_as_ever(house: House, taught: Taught) -> None:
    put(house, taught)
    asked = house.ask("question")
    house.answer(asked, "A", 0.505)
    house.checker.check([asked])
    assert house.row(asked)["lane"] == "tier2"


def test_certificates_are_not_asked_where_the_policy_has_a_word(
    house: House, taught: Taught
) -> None:
    never = replace(scopes()[0], kind="question")
    put_certificate(house, certificate(never, rest=2.0))
    told = {"tier1": ("A", 0.985), "tier2": ("A", 0.98), "tier3": ("A", 0.98)}
    assert serve(house, "question", told)["answer_lane"] == "tier2"
    put(house, taught)
    row = serve(house, "question", told)
    assert row["answer_lane"] == "tier1"
    assert row["reason"].endswith("accepted by the policy learnt from run r")
    assert serve(house, "certain", told)["answer_lane"] == "tier3"


@pytest.mark.parametrize(
    "change", [{"fingerprint": "g"}, {"template": "t@2"}, {"adapter": "x"}, {"model": "other"}]
)
def test_a_policy_does_not_apply_to_what_serves_something_else(
    house: House, taught: Taught, change: dict[str, str]
) -> None:
    put(house, taught, *scopes(**change))
    kind, told = case(taught, "tier1", "tier3", keeps=False)
    assert tried(house, serve(house, kind, told)["id"]) == ["tier1"]
    if "fingerprint" not in change:  # which plans cannot know
        assert lanes(house, house.ask("unaudited"))[0] == "tier1"


def test_audits_go_on_and_label_what_the_policy_accepted(house: House, taught: Taught) -> None:
    put(house, taught)
    told = {"tier1": ("A", 0.985), "tier2": ("A", 0.98), "tier3": ("A", 0.98)}
    row = serve(house, "question", told)
    [audit] = [one for one in house.audits() if one["parent_id"] == row["id"]]
    house.settle(audit["id"], ("B", 0.98))
    assert house.labels() == [("tier1", False, "audit", 1.0)]


def test_a_run_is_adopted_shown_and_retired(
    house: House, taught: Taught, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["policy"]) == 0
    assert "there are no policies" in capsys.readouterr().out
    tried_run(house, "r", KINDS)
    cache.store(house.engine, [Cached("k", "A", "tier1", 0.9, "question")], 1)
    assert run(["evaluate", "--run", "r", "--adopt", "--target", "1", "--json"]) == 0
    adopted = json.loads(capsys.readouterr().out)["adopted"]
    assert (adopted["standing"], adopted["run"], adopted["starts"]) == ("in_force", "r", STARTS)
    assert (adopted["target"], adopted["delta"], adopted["labels"]) == (1.0, 0.1, 600)
    assert adopted["left_out"] == ["certain"]
    assert {(s["kind"], s["lane"], s["fingerprint"]) for s in adopted["served"]} == {
        (scope.kind, scope.lane, scope.fingerprint) for scope in scopes()
    }
    assert cache.look_up(house.engine, ["k"], 2) == {}
    live = Policies(house.engine, house.clock).find()
    assert live is not None
    assert live.learnt.as_json() == taught.learnt.as_json()

    assert run(["evaluate", "--run", "r", "--adopt", "--target", "0.9"]) == 0
    out = capsys.readouterr().out
    assert "adopted as policy 2, in force within a minute: question on" in out
    assert "left out, as they keep to the certificates of their lanes: certain" in out
    assert run(["status"]) == 0
    assert "learnt from run r in force" in capsys.readouterr().out
    assert run(["policy", "--retire"]) == 0
    shown = capsys.readouterr().out
    assert "retired by command" in shown
    assert "replaced by a newer one" in shown
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"]["standing"] == "retired"
    assert run(["policy", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)["policies"]
    assert [one["standing"] for one in kept] == ["retired", "replaced"]
    assert run(["policy", "--retire"]) == 2
    assert "no policy is in force" in capsys.readouterr().err


def test_what_cannot_be_adopted_is_one_line_and_changes_nothing(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    tried_run(house, "certain only", {"certain": KINDS["certain"]})
    tried_run(house, "few", {"question": KINDS["question"][:120]})
    tried_run(house, "old", {"unaudited": KINDS["unaudited"]}, fingerprint="old")
    tried_run(house, "other", {"question": KINDS["question"]}, model="other")
    tried_run(house, "mixed", {"question": KINDS["question"][200:]})
    more = {"question": KINDS["question"][:200]}
    tried_run(house, "mixed", more, run=False, fingerprint="new")
    serve(house, "unaudited", {"tier1": ("A", 0.9)})
    for arguments, says in (
        (["t.jsonl.gz", "--adopt"], "--adopt takes --run"),
        (["--run", "certain only", "--adopt"], "there is nothing to adopt"),
        (["--run", "few", "--adopt", "--target", "1", "--delta", "0.001"], ESCALATING),
        (["--run", "other", "--adopt", "--target", "0.9"], "is fast in profile"),
        (["--run", "mixed", "--adopt", "--target", "0.9"], "by more than one model in this run"),
        (["--run", "old", "--adopt", "--target", "0.9"], "fingerprint was 'old' and is 'f.fast'"),
    ):
        assert run(["evaluate", *arguments]) == 2, arguments
        told = capsys.readouterr()
        assert says in told.err
        assert len([line for line in told.err.splitlines() if line.startswith("uptier:")]) == 1
    assert rows(house.engine, "policy") == []


def test_another_fingerprint_lapses_it_and_all_is_as_before(house: House, taught: Taught) -> None:
    catalog = house.settings.catalog
    tried_run(house, "r", KINDS)
    adopt(house.engine, catalog, "r", taught.learnt, GOAL, 600, house.clock())
    house.now += REREAD_US
    told = {"tier1": ("A", 0.985), "tier2": ("A", 0.98), "tier3": ("A", 0.98)}
    serve(house, "question", told)
    assert watch(house.engine, catalog, house.clock()) is None
    found = in_force(house.engine)
    assert found is not None
    assert len(drift.from_json(dict(found.drift["question"])).reference) == 600
    assert drift.from_json(dict(found.drift["question"])).stream == (0.985,)
    assert watch(house.engine, catalog, house.clock()) is None

    cache.store(house.engine, [Cached("k", "A", "tier2", 0.9, "question")], house.now)
    asked = house.ask("question")
    house.answer(asked, "A", 0.985, fingerprint="new")
    house.checker.check([asked])
    Learning(house.engine, catalog).round(house.clock())
    [lapsed] = policies.history(house.engine)
    assert (lapsed.standing, lapsed.reason) == (
        Standing.LAPSED, "question on tier1: fingerprint was 'f.fast' and is 'new'",
    )  # fmt: skip
    assert cache.look_up(house.engine, ["k"], house.now) == {}
    late = [Cached("late", "A", "tier1", 0.9, "question"), Cached("other", "A", "tier1", 0.9, "x")]
    cache.store(house.engine, late, house.clock())  # by who had not heard
    watch(house.engine, catalog, house.clock())
    assert set(cache.look_up(house.engine, ["late", "other"], house.now)) == {"other"}
    house.now += REREAD_US
    assert lanes(house, house.ask("unaudited"))[0] == "tier1"


def test_drift_where_a_kind_begins_lapses_it(house: House, taught: Taught) -> None:
    put(house, taught)
    for _ in range(20):
        house.settle(house.ask("unaudited"), ("A", 0.9), ("A", 0.9))
    assert watch(house.engine, house.settings.catalog, house.clock()) is None
    for _ in range(40):
        house.settle(house.ask("unaudited"), ("A", 0.65), ("A", 0.9))
    lapsed = watch(house.engine, house.settings.catalog, house.clock())
    assert lapsed is not None
    assert policies.history(house.engine)[0].reason.startswith(
        "the scores of unaudited have drifted: mean 0.900 when it was made"
    )


def test_a_lane_that_was_climbed_to_has_no_scores_to_compare_with(
    house: House, taught: Taught
) -> None:
    tried_run(house, "r", KINDS)
    serve(house, "question", {"tier1": ("A", 0.9)})
    learnt = begun_on(taught.learnt, "tier2")
    for name, chosen in (("r", 600), ("climbed", 0)):
        if name == "climbed":
            tried_run(house, name, KINDS, lanes=("tier1", "tier3"))
            tried_run(house, name, {"question": KINDS["question"][:300]}, run=False)
        kept = adopt(house.engine, house.settings.catalog, name, learnt, GOAL, 600, house.clock())
        assert len(drift.from_json(dict(kept.drift["question"])).reference) == chosen


def test_another_calibration_lapses_it(house: House, taught: Taught) -> None:
    put(house, taught)
    for kind, standing in (("certain", Standing.IN_FORCE), ("question", Standing.LAPSED)):
        subject = Subject(kind, "fast", "f.fast", "")
        found = [Calibrated(subject, Correction({}, 2.0), 60)]
        calibrations.store(house.engine, found, [], house.clock())
        assert policies.history(house.engine)[0].standing is standing
    assert policies.history(house.engine)[0].reason == "the calibration of fast changed"


def test_while_the_ledger_is_away_the_policy_read_before_stays(
    house: House, taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(house, taught)
    reader = Policies(house.engine, house.clock)
    found = reader.find()
    assert found is not None
    policies.retire(house.engine, house.clock())
    assert reader.find() is found  # read a moment ago
    house.now += REREAD_US
    with monkeypatch.context() as patch:

        def away(_: object) -> None:
            raise OperationalError("", {}, Exception("gone"))

        patch.setattr(policies, "reading", away)
        assert reader.find() is found
    house.now += REREAD_US
    assert reader.find() is None


def test_a_policy_that_cannot_be_read_is_not_gone_by(house: House, taught: Taught) -> None:
    put(house, taught)
    with house.engine.begin() as connection:
        connection.execute(policies.ROWS.update().values(document='{"form": 2}'))
    assert Policies(house.engine, house.clock).find() is None
