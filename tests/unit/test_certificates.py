"""Certificates in production: what they change, when they are made, why they lapse."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from cli.main import run
from config.catalog import Certifying
from ledger import cache, calibrations, certificates
from ledger.cache import Cached
from ledger.calibrations import Calibrated, Subject
from ledger.certificates import REREAD_US, Certificates, Kept, Standing, in_force
from ledger.labels import by_person
from ledger.trail import trail
from routing import drift
from routing.certify import NEVER, Certificate, Scope
from routing.confidence import Correction
from tests.unit.audited_house import AB, PROFILE, House
from tests.unit.catalogs import catalog
from tests.unit.ledgers import rows
from workers.certifying import certify, wants_certificates, watch
from workers.learning import CERTIFY_US, Learning

FAST = Scope("certain", "tier1", "fast", "f.fast", "")
QUALITY = Scope("certain", "tier2", "quality", "f.quality", "")
STILL = drift.begin([0.9] * 100).as_json()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    opened = House(tmp_path)
    yield opened
    opened.engine.dispose()


def kept(scope: Scope = FAST, **thresholds: float) -> Kept:
    least = dict.fromkeys(AB.labels, thresholds.pop("rest", NEVER if thresholds else 0.8))
    least |= thresholds
    return Kept(Certificate(scope, 0.2, 0.1, least, 90, 3, 100, created_at=5), drift=STILL)


def refusal(scope: Scope) -> Kept:
    return replace(kept(scope), standing=Standing.REFUSED, reason="too few")


def put(house: House, *found: Kept) -> None:
    certificates.store(house.engine, found, house.clock())
    house.now += REREAD_US


def verdicts(house: House, decision_id: str) -> list[tuple[str, bool, tuple[str, ...]]]:
    told = [(a.lane, a.verdict) for a in trail(house.engine, decision_id).attempts]
    return [(lane, v.passed, v.issues) for lane, v in told if v is not None]


def test_without_a_certificate_a_certified_kind_is_accepted_at_the_top_alone(house: House) -> None:
    asked = house.ask("certain")
    settled = house.settle(asked, ("A", 0.99), ("A", 0.99), ("B", None))
    assert (settled["status"], settled["answer_lane"], settled["answer"]) == (
        "accepted", "tier3", "B",
    )  # fmt: skip
    assert verdicts(house, asked) == [
        ("tier1", False, ("no certificate of tier1 for certain",)),
        ("tier2", False, ("no certificate of tier2 for certain",)),
        ("tier3", True, ()),
    ]
    assert house.labels() == [("tier1", False, "top", 1.0), ("tier2", False, "top", 1.0)]


def test_where_no_top_lane_is_left_the_best_attempt_does_not_count_as_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    alone = House(tmp_path)
    settled = alone.settle(alone.ask("certain"), ("A", 0.99), ("B", 0.99))
    assert (settled["status"], settled["answer"]) == ("degraded", "B")
    assert "no certificate of tier2" in settled["reason"]
    alone.engine.dispose()


@pytest.mark.parametrize(
    ("kind", "thresholds", "label", "p", "lane"),
    [
        ("certain", {"rest": 0.8}, "A", 0.8, "tier1"),
        ("certain", {"rest": 0.8}, "A", 0.79, "tier3"),
        ("unaudited", {"rest": 0.8}, "A", 0.79, "tier2"),
        ("unaudited", {"rest": 0.8}, "A", None, "tier2"),
        ("certain", {"A": 0.6, "rest": 0.9}, "A", 0.7, "tier1"),
        ("certain", {"A": 0.6, "rest": 0.9}, "B", 0.7, "tier3"),
        ("certain", {"A": 0.6}, "B", 0.99, "tier3"),
        ("certain", {"rest": 2}, "B", 0.99, "tier3"),
        ("certain", {"rest": 0.1}, "A", 0.51, "tier3"),
    ],
)
def test_a_certificate_decides_beside_the_rubric(
    house: House,
    kind: str,
    thresholds: dict[str, float],
    label: str,
    p: float | None,
    lane: str,
) -> None:
    put(house, kept(replace(FAST, kind=kind), **thresholds))
    settled = house.settle(house.ask(kind), (label, p), ("A", 0.9), ("A", None))
    assert (settled["status"], settled["answer_lane"]) == ("accepted", lane)


@pytest.mark.parametrize(
    "change", [{"fingerprint": "g"}, {"template": "t@2"}, {"adapter": "x"}, {"model": "other"}]
)
def test_a_certificate_of_something_else_does_not_apply(
    house: House, change: dict[str, str]
) -> None:
    put(house, kept(replace(FAST, **change)))
    settled = house.settle(house.ask("certain"), ("A", 0.9), ("A", 0.9), ("A", None))
    assert settled["answer_lane"] == "tier3"


def grow(house: House, *answers: tuple[str, float], kind: str = "certain") -> None:
    """Decisions that climb to the top, which says A to each; tier 1 gives these answers."""
    for label, p in answers:
        house.settle(house.ask(kind), (label, p), ("A", 0.9), ("A", None))


def test_labels_make_a_certificate_and_that_changes_what_is_accepted(house: House) -> None:
    ledger, profile = house.engine, house.settings.catalog
    assert wants_certificates(profile)
    grow(house, *[("A", 0.9)] * 40, *[("B", 0.7)] * 19)
    found = certify(ledger, profile, house.clock())
    assert {(one.scope, one.labels, one.needed, one.made) for one in found} == {
        (FAST, 59, 60, None), (QUALITY, 59, 60, None),
    }  # fmt: skip
    grow(house, ("B", 0.7))
    certify(ledger, profile, house.clock(), dry=True)
    assert in_force(ledger) == []
    certify(ledger, profile, house.clock())
    made = {one.scope: one.certificate for one in in_force(ledger)}
    assert dict(made[FAST].thresholds) == {"A": 0.9, "B": 0.9}
    assert (made[FAST].n, made[FAST].errors, made[FAST].labels) == (40, 0, 60)
    assert (made[FAST].alpha, made[FAST].delta) == (0.2, pytest.approx(0.1 / 2 / 2 / 2))

    house.now += REREAD_US
    assert house.settle(house.ask("certain"), ("A", 0.9))["answer_lane"] == "tier1"
    settled = house.settle(house.ask("certain"), ("B", 0.7), ("A", 0.9))
    assert settled["answer_lane"] == "tier2"
    again = certify(ledger, profile, house.clock())
    assert {(one.labels, one.needed, one.made) for one in again} == {(60, 120, None)}


def test_a_refused_attempt_waits_for_twice_the_labels_and_leaves_less_of_delta(
    house: House,
) -> None:
    ledger, profile = house.engine, house.settings.catalog
    profile = profile.model_copy(update={"certificates": Certifying(alpha=0.2, min_labels=30)})
    grow(house, *[("B", 0.9)] * 30)
    certify(ledger, profile, house.clock(), kind="certain")
    [refused] = certificates.history(ledger, Standing.REFUSED)
    assert (refused.scope, refused.certificate.labels) == (FAST, 30)
    assert "no threshold is shown to keep errors below 0.2 with 30 labels" in refused.reason
    [still, _] = certify(ledger, profile, house.clock())
    assert (still.scope, still.labels, still.needed) == (FAST, 30, 60)

    grow(house, *[("A", 0.95)] * 40)
    certify(ledger, profile, house.clock())
    deltas = {one.scope: one.certificate.delta for one in in_force(ledger)}
    assert deltas == dict.fromkeys((FAST, QUALITY), pytest.approx(0.1 / 4 / 6))
    certify(ledger, profile, house.clock(), again=True)
    assert {one.scope for one in in_force(ledger)} == {FAST, QUALITY}  # there is no new label
    cache.store(ledger, [Cached("k", "A", "tier1", 0.9)], house.now)
    grow(house, *[("B", 0.95)] * 12)
    certify(ledger, profile, house.clock(), again=True)
    standings = {
        scope: [c.standing for c in certificates.history(ledger) if c.scope == scope]
        for scope in (FAST, QUALITY)
    }
    # The newer labels do not show what the older ones did, so that those are in force no more.
    assert standings[FAST] == [Standing.REFUSED, Standing.REPLACED, Standing.REFUSED]
    assert standings[QUALITY] == [Standing.IN_FORCE, Standing.REPLACED, Standing.REPLACED]
    assert cache.look_up(ledger, ["k"], house.now) == {}
    assert {(s.lane, s.standing) for s in certificates.states(ledger)} == {
        ("tier1", Standing.REFUSED), ("tier2", Standing.IN_FORCE),
    }  # fmt: skip


def test_what_is_in_force_is_tried_again_as_labels_double_or_another_promise_is_made(
    house: House,
) -> None:
    ledger, profile = house.engine, house.settings.catalog
    profile = profile.model_copy(update={"certificates": Certifying(alpha=0.2, min_labels=30)})
    grow(house, *[("A", 0.9)] * 40)
    certify(ledger, profile, house.clock())
    grow(house, *[("B", 0.9)] * 39)
    assert [one.needed for one in certify(ledger, profile, house.clock())] == [80, 80]
    other = Certifying(alpha=0.2, delta=0.2, min_labels=30)
    stricter = profile.model_copy(update={"certificates": other})
    tried = certify(ledger, stricter, house.clock(), dry=True)
    assert [one.labels for one in tried if one.made is not None] == [79, 79]
    grow(house, ("B", 0.9))
    certify(ledger, profile, house.clock())
    assert [one.scope for one in in_force(ledger)] == [QUALITY]
    assert [(s.lane, s.standing) for s in certificates.states(ledger)] == [
        ("tier1", Standing.REFUSED), ("tier2", Standing.IN_FORCE),
    ]  # fmt: skip
    put(house, kept(replace(FAST, template="t@1")), refusal(replace(FAST, template="u@1")))
    assert certificates.states(ledger)[0].standing is Standing.IN_FORCE


def test_templates_and_kinds_share_delta(house: House) -> None:
    ledger, profile = house.engine, house.settings.catalog
    profile = profile.model_copy(update={"certificates": Certifying(alpha=0.2, min_labels=30)})
    for template in ("t@1", "u@1"):
        for _ in range(30):
            asked = house.ask("certain", template=template)
            house.settle(asked, ("A", 0.9), ("A", 0.9), ("A", None))
    found = certify(ledger, profile, house.clock())
    deltas = {o.made.certificate.delta for o in found if o.made and o.scope.lane == "tier1"}
    assert sorted(deltas) == pytest.approx([0.1 / 4 / 6, 0.1 / 4 / 2])
    assert all(o.made is None for o in certify(ledger, profile, house.clock()))


def test_what_cannot_be_a_fair_sample_is_left_out(house: House) -> None:
    picked = house.ask("unaudited")
    house.settle(picked, ("B", 0.9))
    row = type("Row", (), house.row(picked))
    assert by_person(house.engine, row, "A", right=True, now=9) == 1
    house.settle(house.ask("certain"), ("B", 0.505), ("A", 0.9), ("A", None))
    house.settle(house.ask("certain"), ("B", None), ("A", 0.9), ("A", None))
    found = certify(house.engine, house.settings.catalog, house.clock(), again=True)
    assert {(one.scope.kind, one.scope.lane): one.labels for one in found} == {
        ("unaudited", "tier1"): 0, ("certain", "tier1"): 0, ("certain", "tier2"): 2,
    }  # fmt: skip
    wanted = certify(house.engine, house.settings.catalog, house.clock())
    assert {one.scope.kind for one in wanted} == {"certain"}


def test_drift_lapses_a_certificate_and_only_newer_labels_make_another(house: House) -> None:
    ledger, profile = house.engine, house.settings.catalog
    grow(house, *[("A", 0.9)] * 60)
    certify(ledger, profile, house.clock())
    house.now += REREAD_US
    for _ in range(10):
        assert house.settle(house.ask("certain"), ("A", 0.9))["answer_lane"] == "tier1"
    assert watch(ledger, house.clock()) == []
    [found] = [one for one in in_force(ledger) if one.scope == FAST]
    assert len(drift.from_json(dict(found.drift)).stream) == 10
    assert watch(ledger, house.clock()) == []

    cache.store(ledger, [Cached("k", "A", "tier1", 0.9)], house.now)
    for _ in range(40):
        house.settle(house.ask("certain"), ("A", 0.65), ("A", 0.9))
    [lapsed] = watch(ledger, house.clock())
    assert lapsed.scope == FAST
    [shown] = certificates.history(ledger, Standing.LAPSED)
    assert shown.reason.startswith("its scores have drifted: mean 0.900 when it was made")
    assert shown.lapsed_at == house.now
    assert cache.look_up(ledger, ["k"], house.now) == {}
    cache.store(ledger, [Cached("late", "A", "tier1", 0.9)], house.clock())  # by who had not heard
    watch(ledger, house.clock())
    assert cache.look_up(ledger, ["late"], house.now) == {}

    house.now += REREAD_US
    settled = house.settle(house.ask("certain"), ("A", 0.95), ("A", 0.9))
    assert settled["answer_lane"] == "tier2"
    again = certify(ledger, profile, house.clock(), again=True)
    assert {(one.scope.lane, one.labels) for one in again} == {("tier1", 0), ("tier2", 60)}


def test_a_new_model_or_template_lapses_what_was_certified_before(house: House) -> None:
    put(house, kept(replace(FAST, template="t@1")), kept(replace(FAST, template="u@1")),
        kept(replace(QUALITY, fingerprint="old")))  # fmt: skip
    house.settle(house.ask("certain", template="t@2"), ("A", 0.9), ("A", 0.9), ("A", None))
    house.settle(house.ask("certain"), ("A", 0.9), ("A", 0.9), ("A", None))
    assert {one.scope.lane for one in watch(house.engine, house.clock())} == {"tier2"}
    house.settle(house.ask("certain", template="t@2"), ("A", 0.9), ("A", 0.9), ("A", None))
    assert [one.scope.template for one in watch(house.engine, house.clock())] == ["t@1"]
    reasons = {one.reason for one in certificates.history(house.engine, Standing.LAPSED)}
    assert reasons == {
        "fingerprint was 'old' and is 'f.quality'", "template was 't@1' and is 't@2'",
    }  # fmt: skip


def test_another_calibration_lapses_certificates_and_labels_before_it_do_not_count(
    house: House,
) -> None:
    ledger, profile = house.engine, house.settings.catalog
    grow(house, *[("A", 0.9)] * 60)
    certify(ledger, profile, house.clock())
    subject = Subject("certain", "fast", "f.fast", "")
    calibrations.store(ledger, [Calibrated(subject, Correction({}, 2.0), 60)], [], house.clock())
    assert {one.scope for one in in_force(ledger)} == {QUALITY}
    [lapsed] = certificates.history(ledger, Standing.LAPSED)
    assert (lapsed.scope, lapsed.reason) == (FAST, "the calibration of its probabilities changed")
    grow(house, ("A", 0.9))
    [found, _] = certify(ledger, profile, house.clock())
    assert (found.scope, found.labels) == (FAST, 1)
    calibrations.forget(ledger, "quality", ["certain"], [], house.clock())
    assert {one.scope for one in in_force(ledger)} == {QUALITY}  # it had no calibration


def test_the_steward_learns_at_its_own_pace(house: House) -> None:
    learning = Learning(house.engine, house.settings.catalog)
    learning.round(house.clock())
    grow(house, *[("A", 0.9)] * 60)
    learning.round(house.now + CERTIFY_US - 1_000_000)
    assert in_force(house.engine) == []
    learning.round(house.now + CERTIFY_US + 60_000_000)
    assert {one.scope for one in in_force(house.engine)} == {FAST, QUALITY}


def test_no_part_of_learning_stops_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing = house.settings.catalog.routing.model_copy(update={"learn": True})
    learns = house.settings.catalog.model_copy(update={"routing": routing})
    grow(house, *[("A", 0.9)] * 60)

    def fails(*_: object) -> None:
        raise RuntimeError("a bad row")

    monkeypatch.setattr("workers.learning.watch", fails)
    Learning(house.engine, learns).round(house.clock())
    assert {one.scope for one in in_force(house.engine)} == {FAST, QUALITY}
    assert {r["lane"] for r in rows(house.engine, "lane_history")} == {"tier1", "tier2", "tier3"}


def test_a_score_that_comes_during_the_look_counts_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(house, *[("A", 0.9)] * 60)
    certify(house.engine, house.settings.catalog, house.clock())
    house.now += REREAD_US
    house.settle(house.ask("certain"), ("A", 0.9))
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "newest_attempt", lambda _: "")
        watch(house.engine, house.clock())
    watch(house.engine, house.clock())
    [found] = [one for one in in_force(house.engine) if one.scope == FAST]
    assert len(drift.from_json(dict(found.drift)).stream) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"certificates": {"alpha": 0}}, "alpha"),
        ({"certificates": {"delta": 1}}, "delta"),
        ({"audit": {"share": 1.5}}, "share"),
        ({"kinds": {"x": {"tier": "cloud", "output": "text", "certified": True}}}, "certified"),
    ],
)
def test_what_a_profile_may_not_say(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        catalog(**change)


def test_while_the_ledger_is_away_what_was_read_before_stays_in_force(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(house, kept())
    reader = Certificates(house.engine, house.clock)
    found = reader.find(FAST)
    assert found is not None
    calls = itertools.count()

    def away(_: object) -> list[Kept]:
        next(calls)
        raise OperationalError("", {}, Exception("gone"))

    monkeypatch.setattr(certificates, "in_force", away)
    house.now += REREAD_US
    assert reader.find(FAST) == found
    assert reader.find(FAST) == found
    assert next(calls) == 1


def test_the_command_certifies_and_shows_what_stands(
    house: House,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UPTIER_PROFILE", str(PROFILE))
    assert run(["certify"]) == 0
    assert "there are no certificates" in capsys.readouterr().out
    grow(house, *[("B", 0.7)] * 60)
    grow(house, ("A", 0.9), kind="unaudited")
    assert run(["certify", "--dry-run", "--json"]) == 0
    tried = json.loads(capsys.readouterr().out)
    assert tried["certificates"] == []
    by_lane = {(one["kind"], one["lane"]): one for one in tried["examined"]}
    assert by_lane["certain", "tier1"]["certificate"]["thresholds"] == {"B": None}
    assert by_lane["certain", "tier1"]["certificate"]["standing"] == "refused"
    assert by_lane["certain", "tier2"]["certificate"]["thresholds"] == {"A": 0.9}
    assert run(["certify"]) == 0
    assert "B never" in (shown := capsys.readouterr().out)
    assert "A 0.900" in shown
    assert run(["certify", "--show", "--kind", "unaudited"]) == 0
    assert "there are no certificates" in capsys.readouterr().out
    assert run(["certify", "--kind", "note"]) == 2
    assert "--kind 'note' is no choice" in capsys.readouterr().err
