"""The cache in the ledger: expiry, the bound, counts; and what workers serve from it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cli.main import run
from config.catalog import Catalog
from config.settings import Settings
from ledger import cache
from ledger.answers import Answered
from ledger.cache import Cached
from ledger.cache_audits import Audit, agreement, close_audits, open_audits
from ledger.cache_stats import cache_stats
from ledger.clock import SECOND
from ledger.database import migrate, open_ledger
from ledger.records import Claimed, Hit
from ledger.rulings import Settlement
from routing.decision import (
    CacheScope,
    Complexity,
    Decision,
    Hop,
    Plan,
    Privacy,
    Settled,
    Status,
    TextOutput,
)
from routing.similar import Trust
from tests.integration.places import Absent, postgres
from tests.unit.catalogs import KINDS, catalog, decision
from tests.unit.ledgers import rows
from workers.backends.llama_cpp import _key
from workers.backends.llama_prompt import Prompt
from workers.backends.scripted import ScriptedBackend
from workers.caching import RECOUNT_US, Memory
from workers.embedding import NgramEmbedder
from workers.questions import Questions, draw_seed

EMBEDDER = NgramEmbedder.name
WORDING = "The reviewer of the bracket drawing asks for a wider radius and a tighter tolerance"
ALIKE = "The reviewer of the bracket drawing asked for a wider radius and a tighter tolerance"
OTHER = "Lunch is served at noon in the canteen beside the workshop; who brings the bread?"


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        yield from _opened(Settings(data_dir=tmp_path))
        return
    try:
        with postgres(tmp_path) as given:
            yield from _opened(Settings(data_dir=tmp_path, **given))
    except Absent as why:
        pytest.skip(str(why))


def _opened(settings: Settings) -> Iterator[Engine]:
    migrate(settings)
    engine = open_ledger(settings)
    yield engine
    engine.dispose()


class Clock:
    now = 10 * SECOND

    def __call__(self) -> int:
        return self.now


def entry(key: str, answer: str = "A", **more: Any) -> Cached:
    return Cached(key, answer, "tier1", 0.9, "next_action", **more)


def memory(engine: Engine, clock: Clock, kind: dict[str, Any], **rules: Any) -> Memory:
    return Memory(cached(kind, **rules), engine=engine, clock=clock)


def cached(kind: dict[str, Any], **rules: Any) -> Catalog:
    changed = {**KINDS, "next_action": {"tier": "local_fast", "cache": True, **kind}}
    return catalog(kinds=changed, cache=rules)


def serve(memory: Memory, asked: Decision, name: str = "1", run: str = "r") -> list[Hit]:
    return memory.serve([Claimed(name, run, asked, "tier1", 0, 0, 0, "", 0)], "tier1", "f")


def answered(
    asked: Decision, name: str, lane: str, fingerprint: str, plan: Plan | None = None
) -> Answered:
    made = Answered.__new__(Answered)
    given = {"id": name, "run_id": "r", "decision": asked, "lane": lane,
             "fingerprint": fingerprint, "plan": plan, "parent_id": None}  # fmt: skip
    for field, value in given.items():
        object.__setattr__(made, field, value)
    return made


def keep(
    memory: Memory, asked: Decision, answer: str = "A", name: str = "0", lane: str = "tier1",
    fingerprint: str = "f",
) -> None:  # fmt: skip
    whole = answered(asked, name, lane, fingerprint)
    memory.keep([(whole, Settlement(Status.ACCEPTED, answer, lane, "passed", 0.9))])


def test_an_answer_serves_until_it_expires_and_its_count_goes_on(engine: Engine) -> None:
    cache.store(engine, [entry("a", expires_at=100), entry("b")], 1)
    assert set(cache.look_up(engine, ["a", "a", "b"], 99)) == {"a", "b"}
    assert set(cache.look_up(engine, ["a", "b"], 100)) == {"b"}
    cache.store(engine, [entry("a", "B", expires_at=200), entry("b", "B")], 150)
    found = {r["key"]: (r["answer"], r["hits"], r["used_at"]) for r in rows(engine, "cache_entry")}
    assert found == {"a": ("B", 2, 150), "b": ("A", 2, 100)}


def test_the_first_of_two_answers_in_one_batch_stays(engine: Engine) -> None:
    cache.store(engine, [entry("a", "A"), entry("a", "B")], 1)
    assert cache.look_up(engine, ["a"], 2)["a"].answer == "A"


def test_beyond_the_bound_the_least_recently_used_leave(engine: Engine) -> None:
    for moment, key in enumerate("abcd"):
        cache.store(engine, [entry(key)], moment)
    cache.store(engine, [entry("e", expires_at=50)], 5)
    cache.look_up(engine, ["a"], 10)
    assert cache.trim(engine, 5, 20) == 0
    assert cache.trim(engine, 2, 60) == 3
    assert [r["key"] for r in rows(engine, "cache_entry")] == ["a", "d"]


def test_a_process_keeps_the_bound_by_itself(engine: Engine) -> None:
    small = memory(engine, Clock(), {}, max_entries=200)
    for i in range(230):
        keep(small, decision(prompt=f"Task {i}?"))
        if i in (200, 229):
            assert len(rows(engine, "cache_entry")) <= 200
    assert len(rows(engine, "cache_entry")) >= 195


def test_two_workers_store_look_up_and_trim_at_once(engine: Engine) -> None:
    faults: list[BaseException] = []

    def work(offset: int) -> None:
        try:
            for i in range(30):
                names = [f"{(i + offset + j) % 40:02d}" for j in range(10)]
                cache.store(engine, [entry(n, expires_at=10_000) for n in names], i)
                cache.look_up(engine, names[::-1], i)
                cache.trim(engine, 15, i)
        except BaseException as error:  # shown by the assertion below
            faults.append(error)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    cache.trim(engine, 15, 100)
    assert len(rows(engine, "cache_entry")) == 15


def test_private_and_open_answers_never_meet(engine: Engine) -> None:
    known = memory(engine, Clock(), {"semantic": True, "similarity": 0.5})
    levels = [{"privacy": p} for p in (Privacy.LOW, Privacy.HIGH, Privacy.MAXIMUM)]
    for level in levels:
        for other in levels:
            cache.clear(engine)
            keep(known, decision(prompt=WORDING, agent_id="d-1", **level))
            found = serve(known, decision(prompt=WORDING, agent_id="d-1", **other))
            assert bool(found) is (level == other)
            if level["privacy"] is not Privacy.LOW:
                [row] = rows(engine, "cache_entry")
                assert (row["vector"], row["space"]) == (None, None)
                assert WORDING not in str(row)


@pytest.mark.parametrize("wish", [{"own_sample": True}, {"cache": CacheScope.OFF}])
def test_who_wants_an_own_sample_neither_takes_nor_gives(
    engine: Engine, wish: dict[str, Any]
) -> None:
    known = memory(engine, Clock(), {})
    keep(known, decision(**wish))
    assert rows(engine, "cache_entry") == []
    keep(known, decision())
    assert serve(known, decision(**wish)) == []
    assert [h.answer for h in serve(known, decision())] == ["A"]


def test_an_own_sample_has_its_own_seed_and_its_own_computation() -> None:
    asked = catalog()
    backend = ScriptedBackend("small", asked.models["small"])
    questions = Questions(asked, "tier1", backend=backend, fingerprint="f", clock=Clock())
    prompt = Prompt((1, 2), 1)
    keys, seeds = set(), set()
    for own in (True, False):
        for name in ("1", "2"):
            one = decision(key=name, own_sample=own, output=TextOutput())
            request = questions.request(Claimed(name, "r", one, "tier1", 0, 0, 0, "", 0))
            keys.add((own, _key(request, prompt)))
            seeds.add((own, draw_seed(one, "tier1", 0)))
    assert sorted(own for own, _ in keys) == sorted(own for own, _ in seeds) == [False, True, True]


def test_what_a_lane_further_up_the_plan_has_answered_serves_at_once(engine: Engine) -> None:
    clock, asked = Clock(), decision()
    prints = {"tier1": "f", "tier2": "g", "tier3": None}
    made = Memory(cached({}), engine=engine, clock=clock, fingerprint_of=prints.get)
    plan = Plan(hops=tuple(Hop(lane=lane, reason="x") for lane in ("tier1", "tier2", "tier3")),
                complexity=Complexity.SIMPLE).model_dump_json()  # fmt: skip

    def hits(lane: str, hop: int, asked: Decision = asked) -> list[Hit]:
        held = Claimed("1", "r", asked, lane, 0, 0, 0, plan, hop)
        return made.serve([held], lane, prints[lane] or "")

    assert hits("tier1", 0) == []
    keep(made, asked, "B", lane="tier2", fingerprint="g")
    [hit] = hits("tier1", 0)
    assert (hit.answer, hit.lane) == ("B", "tier2")
    assert "further up its plan" in hit.reason
    assert [hit.lane for hit in hits("tier2", 1)] == ["tier2"]
    assert hits("tier3", 2) == []  # an answer from below never comes back up
    assert hits("tier1", 0, asked.model_copy(update={"prompt": "Else?"})) == []
    assert [row["hits"] for row in rows(engine, "cache_entry")] == [2]
    keep(made, asked, "A")
    assert [hit.lane for hit in hits("tier1", 0)] == ["tier1"]  # its own goes first


def test_a_choice_that_a_whole_plan_answered_below_the_bar_is_not_asked_again_for_a_while(
    engine: Engine,
) -> None:
    clock, asked = Clock(), decision()
    prints = {"tier1": "f", "tier2": "g"}
    made = Memory(cached({}, degraded_ttl_s=60), engine=engine, clock=clock,
                  fingerprint_of=prints.get)  # fmt: skip
    plans = {
        lanes: Plan(hops=tuple(Hop(lane=lane, reason="x") for lane in lanes),
                    complexity=Complexity.SIMPLE)
        for lanes in (("tier1", "tier2"), ("tier1",), ("tier2",), ("tier1", "tier3"))
    }  # fmt: skip
    whole = plans["tier1", "tier2"]

    def hits(plan: Plan = whole, asked: Decision = asked) -> list[Hit]:
        held = Claimed("1", "r", asked, "tier1", 0, 0, 0, plan.model_dump_json(), 0)
        return made.serve([held], "tier1", "f")

    def ends(
        asked: Decision = asked, status: Status = Status.DEGRADED, plan: Plan = whole,
        **heard: str,
    ) -> None:  # fmt: skip
        ended = Settled(id="0", key="k", kind=asked.kind, status=status, answer="B", lane="tier1")
        served = heard or {"tier1": "f", "tier2": "g"}
        made.keep_degraded([(answered(asked, "0", "tier2", "g", plan), ended, served)])

    ends(tier2="g")  # tier 1 failed, or was away
    ends(tier1="before", tier2="g")  # another model was asked there
    ends(status=Status.FALLBACK)
    ends(asked.model_copy(update={"output": TextOutput()}))
    ends(plan=plans["tier1", "tier3"])  # nobody here knows what serves tier 3
    assert rows(engine, "cache_entry") == []
    ends()
    [hit] = hits()
    assert (hit.answer, hit.lane, hit.status) == ("B", "tier1", Status.DEGRADED)
    assert hits(plans["tier1",]) == []  # another plan may come to something else
    ends(asked=asked.model_copy(update={"prompt": "Short?"}), plan=plans["tier2",])
    again = asked.model_copy(update={"prompt": "Short?"})
    climbed = Claimed("1", "r", again, "tier2", 0, 0, 0, whole.model_dump_json(), 1)
    assert made.serve([climbed], "tier2", "g") == []  # tier 1 had something to say as well
    assert hits(asked=asked.model_copy(update={"prompt": "Else?"})) == []
    prints["tier2"] = "h"
    assert hits() == []
    prints["tier2"] = "g"
    clock.now += 61 * SECOND
    assert hits() == []


def test_a_kind_has_its_own_time_to_live(engine: Engine) -> None:
    clock = Clock()
    known = memory(engine, clock, {"cache_ttl_s": 5}, ttl_s=100)
    keep(known, decision())
    clock.now += 5 * SECOND - 1
    assert len(serve(known, decision())) == 1
    clock.now += 1
    assert serve(known, decision()) == []


def audited(engine: Engine, agreed: int, differing: int = 0) -> None:
    names = [f"{i:04d}" for i in range(agreed + differing)]
    audits = [Audit(name, "next_action", EMBEDDER, 0.9, "A") for name in names]
    open_audits(engine, audits, 1)
    close_audits(engine, {n: "A" if i < agreed else "B" for i, n in enumerate(names)})


def test_on_trial_every_alike_question_is_answered_for_real(engine: Engine) -> None:
    known = memory(engine, Clock(), {"semantic": True, "similarity": 0.8})
    keep(known, decision(prompt=WORDING))
    assert serve(known, decision(prompt=ALIKE), "x") == []
    assert serve(known, decision(prompt=OTHER), "y") == []
    [row] = rows(engine, "cache_audit")
    assert (row["decision_id"], row["answer"], row["agreed"]) == ("x", "A", None)
    assert row["similarity"] == pytest.approx(0.9, abs=0.1)
    keep(known, decision(prompt=ALIKE), "B", "x")
    found = agreement(engine, "next_action", EMBEDDER, 0.8, 100)
    assert (found.agreed, found.audited) == (0, 1)
    assert agreement(engine, "next_action", EMBEDDER, 0.999, 100).audited == 0


def test_once_proven_alike_questions_are_served_and_a_share_is_audited(engine: Engine) -> None:
    audited(engine, 60)
    known = memory(engine, Clock(), {"semantic": True, "similarity": 0.8}, audit_share=0.25)
    keep(known, decision(prompt=WORDING))
    hits = [hit for i in range(200) for hit in serve(known, decision(prompt=ALIKE), f"d{i}")]
    assert {h.answer for h in hits} == {"A"}
    assert "alike" in hits[0].reason
    assert 120 < len(hits) < 180
    assert len(rows(engine, "cache_audit")) == 60 + 200 - len(hits)
    [row] = rows(engine, "cache_entry")
    assert row["hits"] == len(hits)


def test_a_layer_that_disagrees_switches_itself_off_and_says_so(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    audited(engine, 60)
    clock = Clock()
    known = memory(engine, clock, {"semantic": True, "similarity": 0.8}, audit_share=1e-9)
    keep(known, decision(prompt=WORDING))
    assert len(serve(known, decision(prompt=ALIKE), "x")) == 1
    cache.clear(engine, "another")
    audited(engine, 60, 40)
    clock.now += RECOUNT_US
    with caplog.at_level(logging.WARNING):
        assert serve(known, decision(prompt=ALIKE), "y") == []
    assert "next_action is off: 60 of 100 audited answers agree" in caplog.text
    assert all(r["decision_id"] != "y" for r in rows(engine, "cache_audit"))
    assert len(serve(known, decision(prompt=WORDING), "z")) == 1


def test_audits_are_kept_as_long_as_they_may_count(engine: Engine) -> None:
    known = memory(engine, Clock(), {"semantic": True}, audit_window=30, max_entries=100)
    for moment in range(5):
        names = [f"{moment}.{i:02d}" for i in range(30)]
        audits = [Audit(name, "next_action", EMBEDDER, 0.99, "A") for name in names]
        open_audits(engine, audits, moment)
    open_audits(engine, [Audit("old", "tool_selection", EMBEDDER, 0.99, "A")], 0)
    keep(known, decision())
    kept = [row["decision_id"] for row in rows(engine, "cache_audit")]
    assert (len(kept), kept[0], kept[-1]) == (121, "1.00", "old")


def test_other_numbers_are_never_alike(engine: Engine) -> None:
    audited(engine, 60)
    known = memory(engine, Clock(), {"semantic": True, "similarity": 0.1}, audit_share=1e-9)
    keep(known, decision(prompt=WORDING + " by 3 mm"))
    assert serve(known, decision(prompt=ALIKE + " by 4 mm")) == []
    assert len(serve(known, decision(prompt=ALIKE + " by 3 mm"))) == 1


def test_statistics_show_the_threshold_beside_what_was_measured(engine: Engine) -> None:
    audited(engine, 28, 2)
    rules = cached({"semantic": True, "cache_ttl_s": 60, "similarity": 0.85})
    cache.store(engine, [entry("a"), entry("b")], 1)
    cache.look_up(engine, ["a", "a", "a"], 2)
    found = cache_stats(engine, rules, EMBEDDER)
    assert (found.entries, found.hits, found.average_hits) == (2, 3, 1.5)
    assert (found.decisions, found.hit_rate) == (0, None)
    use = found.by_kind["next_action"]
    assert (use.entries, use.hits, use.ttl_s) == (2, 3, 60)
    assert use.semantic is not None
    assert (use.semantic.similarity, use.semantic.audited, use.semantic.state) == (
        0.85, 30, Trust.TRIAL,
    )  # fmt: skip
    assert use.semantic.disagreement == pytest.approx(2 / 30)
    assert cache.clear(engine, "next_action") == (2, 30)
    assert cache_stats(engine, rules, EMBEDDER).entries == 0


def test_the_commands_show_and_empty_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    for empty in _opened(Settings(data_dir=tmp_path)):
        cache.store(empty, [entry("a"), Cached("b", "A", "tier1", None, "yes_no_decision")], 1)
        cache.look_up(empty, ["a"], 2)
    assert run(["cache", "stats", "--profile", "tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["entries"], found["hits"], found["by_kind"]["next_action"]["hits"]) == (2, 1, 1)
    assert found["by_kind"]["yes_no_decision"]["ttl_s"] == 3600
    assert run(["cache", "clear", "--profile", "tiny", "--kind", "next_action", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 1
    assert run(["cache", "stats", "--profile", "tiny"]) == 0
    assert "1 of at most 10,000" in capsys.readouterr().out
    assert run(["cache", "clear", "--profile", "tiny", "--kind", "nonsense"]) == 2
    told = capsys.readouterr().err
    assert "'nonsense' is not cached" in told
    assert told.count("\n") == 1
