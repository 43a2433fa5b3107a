"""What Prometheus reads: counts that are neither lost nor made twice, and the page of them."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event, select

from config.errors import LedgerError
from config.settings import Settings
from ledger import lifecycle, sweeping
from ledger.budgets import Bound, payer_scope, reserve
from ledger.calls import close_lost
from ledger.clock import SECOND, now
from ledger.database import open_ledger, reading, writing
from ledger.metrics import catalog, counting, totals
from ledger.metrics.catalog import MetricKind
from ledger.metrics.page import Page
from ledger.metrics.server import served
from ledger.metrics.standing import standing
from ledger.records import Hit, StoredVerdict, Tried
from ledger.rulings import Ruling, Settlement
from ledger.runs import start_run
from ledger.tables import TABLES
from ledger.workers import Life, announce
from routing.decision import Status
from tests.unit.ledgers import LEASE_US, claim_one, fresh, planned, rows

KINDS = frozenset({"question"})
PROFILE = """
[tiers.low]
rank = 1
[tiers.high]
rank = 2
[lanes.tier1]
tier = "low"
model = "small"
[lanes.tier2]
tier = "high"
model = "small"
[models.small]
backend = "scripted"
[kinds.question]
tier = "low"
[routing]
unknown_kind_tier = "low"
critic_tier = "low"
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = fresh(tmp_path)
    yield found
    found.dispose()


@pytest.fixture
def run_id(engine: Engine) -> str:
    return start_run(engine, mode="test", profile="tiny", now=0).id


def settings_of(folder: Path, **more: Any) -> Settings:
    path = folder / "profile.toml"
    path.write_text(PROFILE)
    return Settings(profile=str(path), data_dir=folder, **more)


def sums(engine: Engine) -> dict[tuple[str, ...], int]:
    with reading(engine) as connection:
        return totals.totals(connection, KINDS)


def counted(engine: Engine, metric: catalog.Metric) -> dict[tuple[str, ...], int]:
    return {series[1:]: n for series, n in sums(engine).items() if series[0] == metric.name and n}


def page_of(settings: Settings) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page = Page(settings)
    try:
        text = page.text().decode()
    finally:
        page.close()
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def submit(engine: Engine, run_id: str, *keys: str, lanes: tuple[str, ...] = ("tier1", "tier2")
           ) -> list[str]:  # fmt: skip
    items = [planned(key, *lanes) for key in keys]
    return list(lifecycle.submit(engine, run_id, items, now=10).ids)


def rule(engine: Engine, decision_id: str, *, passed: bool, now: int) -> None:
    """Settle a decision that passed; let it climb, or end below the bar, where it did not."""
    row = next(r for r in rows(engine, "decision") if r["id"] == decision_id)
    tried = next(a for a in reversed(rows(engine, "attempt")) if a["decision_id"] == decision_id)
    verdict = StoredVerdict(format=1, completeness=1, coherence=1, score=1, passed=passed,
                            usable=True, answer="A")  # fmt: skip
    ruling = Ruling(decision_id, row["hop"], tried["id"], verdict.model_dump_json(), 1.0, passed)
    if passed:
        ruling = replace(ruling, settle=Settlement(Status.ACCEPTED, "A", row["lane"], "well"))
    elif row["hop"] == 0:
        ruling = replace(ruling, climb_to=(1, "tier2"))
    else:
        ruling = replace(ruling, degrade="no lane is left")
    lifecycle.rule(engine, [ruling], now)


def answer(engine: Engine, decision_id: str, lane: str, now: int, **more: Any) -> None:
    claim_one(engine, decision_id, f"t{now}", now, lane)
    tried = Tried(decision_id, "m", "f", raw="A", label="A", **more)
    lifecycle.record(engine, f"t{now}", [tried], now)


def test_a_decision_is_counted_on_its_whole_way(engine: Engine, run_id: str) -> None:
    [one] = submit(engine, run_id, "k")
    answer(engine, one, "tier1", 20, tokens_in=100, tokens_cached=60, tokens_out=2,
           waiting_us=30_000, inference_us=2 * SECOND)  # fmt: skip
    rule(engine, one, passed=False, now=30)
    answer(engine, one, "tier2", 40, cost_micros=250)
    rule(engine, one, passed=True, now=10 + 3 * SECOND)
    assert counted(engine, catalog.SUBMITTED) == {("question", "tier1"): 1}
    assert counted(engine, catalog.SETTLED) == {("question", "tier2", "accepted"): 1}
    assert counted(engine, catalog.CHECKS) == {
        ("question", "tier1", "failed"): 1, ("question", "tier2", "passed"): 1
    }  # fmt: skip
    assert counted(engine, catalog.ESCALATIONS) == {("tier1", "tier2"): 1}
    assert counted(engine, catalog.ATTEMPTS) == {("tier1", "answered"): 1, ("tier2", "answered"): 1}
    assert counted(engine, catalog.INPUT_TOKENS) == {("tier1",): 100}
    assert counted(engine, catalog.CACHED_TOKENS) == {("tier1",): 60}
    assert counted(engine, catalog.COST) == {("tier2",): 250}
    assert counted(engine, catalog.DECISION_SECONDS) == {
        ("tier2", "5"): 1, ("tier2", "sum"): 3 * SECOND
    }  # fmt: skip
    assert counted(engine, catalog.WAITING_SECONDS) == {
        ("tier1", "0.05"): 1, ("tier1", "sum"): 30_000, ("tier2", "0.005"): 1
    }  # fmt: skip


def test_counters_say_what_the_tables_say_whatever_happens(engine: Engine, run_id: str) -> None:
    rng = random.Random(7)
    ids = submit(engine, run_id, *(f"k{n}" for n in range(60)))
    submit(engine, run_id, *(f"k{n}" for n in range(60)))  # the same again is not counted
    for number, one in enumerate(ids):
        now = 100 + 10 * number
        match rng.randrange(6):
            case 0:
                lifecycle.cancel(engine, now, ids=[one])
            case 1:
                claim_one(engine, one, f"t{now}", now, "tier1")
                lifecycle.settle_cached(engine, f"t{now}", [Hit(one, "A", "tier1", None)], now)
            case 2:
                answer(engine, one, "tier1", now, error="broken", climb_to=(1, "tier2"))
            case 3:
                claim_one(engine, one, f"t{now}", now, "tier1")
                lifecycle.bury(engine, f"t{now}", [one], "poison", now, Status.DEAD)
            case _:
                answer(engine, one, "tier1", now, inference_us=rng.randrange(SECOND))
                rule(engine, one, passed=rng.random() < 0.5, now=now + 5)
        if number % 20 == 0:
            totals.fold(engine, KINDS)
    decisions, tried = rows(engine, "decision"), rows(engine, "attempt")
    ended = Counter(
        (d["kind"], d["answer_lane"] or "none", d["status"])
        for d in decisions
        if d["state"] == "settled"
    )
    assert counted(engine, catalog.SETTLED) == dict(ended)
    assert counted(engine, catalog.SUBMITTED) == {("question", "tier1"): 60}
    assert counted(engine, catalog.ATTEMPTS) == dict(
        Counter((a["lane"], a["outcome"]) for a in tried)
    )
    verdicts = Counter(
        (a["lane"], "passed" if a["passed"] else "failed") for a in tried if a["passed"] is not None
    )
    checks: Counter[tuple[str, str]] = Counter()
    for (_, lane, verdict), count in counted(engine, catalog.CHECKS).items():
        checks[lane, verdict] += count
    assert checks == verdicts
    climbed = sum(d["climbs"] for d in decisions)
    assert sum(counted(engine, catalog.ESCALATIONS).values()) == climbed
    [times] = [n for k, n in counted(engine, catalog.INFERENCE_SECONDS).items() if k[1] == "sum"]
    assert times == sum(a["inference_us"] for a in tried)


def test_what_is_rolled_back_is_not_counted(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), writing(engine) as connection:
        counting.lease_expired(connection, "tier1")
        raise ZeroDivisionError
    with writing(engine) as connection:
        connection.execute(select(1))
    assert sums(engine) == {}


def test_a_fold_changes_no_sum_and_leaves_nothing_behind(engine: Engine, run_id: str) -> None:
    for number in range(30):
        submit(engine, run_id, f"k{number}")
    before = sums(engine)
    assert totals.fold(engine, KINDS, limit=12) == 12
    assert sums(engine) == before
    assert totals.fold(engine, KINDS) == 18
    assert (sums(engine), rows(engine, "tally")) == (before, [])
    assert totals.fold(engine, KINDS) == 0


def test_no_counter_ever_falls_while_others_write_and_fold(engine: Engine, run_id: str) -> None:
    done = threading.Event()
    faults: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(60):
                submit(engine, run_id, f"{name}{number}")
        except BaseException as error:
            faults.append(error)

    def sweep() -> None:
        try:
            while not done.is_set():
                totals.fold(engine, KINDS, limit=5)
        except BaseException as error:
            faults.append(error)

    writers = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in (*writers, *sweepers):
        thread.start()
    seen = 0
    while any(w.is_alive() for w in writers):
        found = sum(counted(engine, catalog.SUBMITTED).values())
        assert found >= seen
        seen = found
    done.set()
    for thread in (*writers, *sweepers):
        thread.join()
    assert not faults
    assert sum(counted(engine, catalog.SUBMITTED).values()) == 120


def test_kinds_that_nobody_named_are_counted_together(engine: Engine) -> None:
    with writing(engine) as connection:
        for kind in ("question", "bobs", "alices", "x|y"):
            counting.submitted(connection, [(kind, "tier1")])
    wanted = {("question", "tier1"): 1, ("other", "tier1"): 3}
    assert counted(engine, catalog.SUBMITTED) == wanted
    totals.fold(engine, KINDS)
    assert counted(engine, catalog.SUBMITTED) == wanted


def test_a_lost_lease_is_counted_when_its_decision_is_taken_up_again(
    engine: Engine, run_id: str
) -> None:
    one, other = submit(engine, run_id, "k", "l")
    for decision_id in (one, other):
        claim_one(engine, decision_id, "lost", 20, "tier1")
    claim_one(engine, one, "again", 20 + LEASE_US + 1, "tier1")
    sweeping.strand(engine, "tier1", {"tier2"}, 20 + LEASE_US + 1)
    assert counted(engine, catalog.LEASE_EXPIRIES) == {("tier1",): 2}


def test_an_unknown_charge_is_counted_until_it_turns_out(engine: Engine, run_id: str) -> None:
    from ledger.calls import Intended, begin, close_orphans

    [one] = submit(engine, run_id, "k", lanes=("tier1",))
    claim_one(engine, one, "t", 20, "tier1")
    call = Intended(one, "m", "f", 700, (), None, None)
    attempt_id = begin(engine, "t", call, 20).attempt_id
    lifecycle.cancel(engine, 25, ids=[one])
    assert close_orphans(engine, now=100, grace_us=10) == 1
    assert counted(engine, catalog.UNKNOWN_CHARGES) == {("tier1",): 1}
    assert counted(engine, catalog.UNKNOWN_COST) == {("tier1",): 700}
    assert counted(engine, catalog.ATTEMPTS) == {("tier1", "unknown_charge"): 1}
    late = Tried(one, "m", "f", raw="A", cost_micros=300, attempt_id=attempt_id)
    lifecycle.record(engine, "t", [late], 120)
    assert counted(engine, catalog.UNKNOWN_CHARGES) == counted(engine, catalog.UNKNOWN_COST) == {}
    assert counted(engine, catalog.COST) == {("tier1",): 300}


def test_a_lost_paid_call_is_an_unknown_charge(engine: Engine, run_id: str) -> None:
    from ledger.calls import Intended, begin

    [one] = submit(engine, run_id, "k", lanes=("tier1",))
    claim_one(engine, one, "t", 20, "tier1")
    begin(engine, "t", Intended(one, "m", "f", 700, (), None, None), 20)
    again = claim_one(engine, one, "u", 21 + LEASE_US, "tier1")
    close_lost(engine, "u", [again], repeats=False, max_attempts=2,
               lost_call=lambda c: Tried(c.id, "m", "f", error="lost"),
               now=22 + LEASE_US)  # fmt: skip
    assert counted(engine, catalog.UNKNOWN_COST) == {("tier1",): 700}
    assert counted(engine, catalog.SETTLED) == {("question", "none", "dead"): 1}


def test_a_worker_that_comes_back_without_a_farewell_has_died(engine: Engine) -> None:
    announce(engine, Life("a", "tier1-1", "tier1"), "ready")
    announce(engine, Life("a", "tier1-1", "tier1"), "ready")
    announce(engine, Life("b", "tier1-1", "tier1"), "ready")
    announce(engine, Life("b", "tier1-1", "tier1"), "stopping")
    announce(engine, Life("c", "tier1-1", "tier1"), "ready")
    assert counted(engine, catalog.WORKER_STARTS) == {("tier1",): 3}
    assert counted(engine, catalog.WORKER_DEATHS) == {("tier1",): 1}


def test_without_metrics_nothing_is_counted(engine: Engine, tmp_path: Path) -> None:
    quiet = open_ledger(Settings(data_dir=tmp_path, metrics=False))
    run = start_run(quiet, mode="test", profile="tiny", now=0).id
    submit(quiet, run, "k")
    assert rows(quiet, "tally") == []
    quiet.dispose()


def test_the_page_tells_counters_queues_and_workers(
    engine: Engine, run_id: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path)
    one, *_ = submit(engine, run_id, "k", "l", "m")
    answer(engine, one, "tier1", 20, cost_micros=2_500_000, inference_us=40_000)
    rule(engine, one, passed=True, now=30)
    figures = {"slots": 8.0, "running": 3.0, "tokens_in": 100.0, "tokens_cached": 40.0,
               "gpu": 0.0, "vram_used_bytes": 2e9, "vram_total_bytes": 8e9}  # fmt: skip
    announce(engine, Life("a", "tier1-1", "tier1"), "ready", figures)
    found = page_of(settings)

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert value("uptier_ledger_up") == 1
    assert value("uptier_cost_dollars_total", lane="tier1") == 2.5
    assert value("uptier_cost_dollars_total", lane="tier2") == 0
    assert value("uptier_decisions_settled_total", kind="question", lane="tier1",
                 status="accepted") == 1  # fmt: skip
    assert value("uptier_open_decisions", lane="tier1", state="waiting") == 2
    assert value("uptier_open_decisions", lane="tier2", state="waiting") == 0
    assert value("uptier_oldest_waiting_seconds", lane="tier1") > 1e9  # since 1970
    assert value("uptier_oldest_waiting_seconds", lane="tier2") == 0
    assert value("uptier_outbox_messages") > 0
    assert value("uptier_workers_ready", lane="tier1") == 1
    assert value("uptier_workers_ready", lane="tier2") == 0
    assert value("uptier_inference_seconds_bucket", lane="tier1", le="0.025") == 0
    assert value("uptier_inference_seconds_bucket", lane="tier1", le="0.05") == 1
    assert value("uptier_inference_seconds_bucket", lane="tier1", le="+Inf") == 1
    assert value("uptier_inference_seconds_sum", lane="tier1") == 0.04
    [host] = {dict(labels)["host"] for name, labels in found if name == "uptier_worker_up"}
    who = {"worker": "tier1-1", "lane": "tier1", "host": host}
    assert value("uptier_engine_slots", **who) == 8
    assert value("uptier_engine_prefix_hit_tokens_total", **who) == 40
    assert value("uptier_vram_used_bytes", gpu="0", **who) == 2e9


def test_delayed_decisions_wait_for_no_worker(engine: Engine, run_id: str, tmp_path: Path) -> None:
    [one] = submit(engine, run_id, "k")
    claim_one(engine, one, "t", 20, "tier1")
    lifecycle.wait_until(engine, "t", one, 10**18, None)
    found = page_of(settings_of(tmp_path))
    assert found["uptier_open_decisions", (("lane", "tier1"), ("state", "delayed"))] == 1
    assert found["uptier_oldest_waiting_seconds", (("lane", "tier1"),)] == 0


def test_exporters_of_one_ledger_say_the_same_and_keep_nothing(
    engine: Engine, run_id: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path)
    submit(engine, run_id, "k", "l")
    first = page_of(settings)
    totals.fold(engine, KINDS)
    second = page_of(settings)
    key = ("uptier_decisions_submitted_total", (("kind", "question"), ("lane", "tier1")))
    assert first[key] == second[key] == 2


def test_no_label_is_an_id_or_a_text() -> None:
    allowed = {"kind", "lane", "to_lane", "status", "outcome", "verdict", "layer", "state", "scope",
               "provider", "worker", "host", "gpu", "version", "profile"}  # fmt: skip
    assert {label for metric in catalog.ALL for label in metric.labels} <= allowed


def test_names_follow_the_conventions() -> None:
    assert len(catalog.BY_NAME) == len(catalog.ALL)
    for metric in catalog.ALL:
        assert metric.name.startswith("uptier_")
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_micros", "_ms"))
        assert metric.help.endswith(".") or metric.help.endswith(")."), metric.name
        if metric.kind is MetricKind.HISTOGRAM:
            assert metric.name.endswith("_seconds")


def test_looking_makes_no_ledger(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, database_url=None)
    found = page_of(settings)
    assert found["uptier_ledger_up", ()] == 0
    assert not (tmp_path / "ledger.db").exists()


def test_a_ledger_that_fails_is_told_and_the_page_stays(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    (tmp_path / "ledger.db").write_bytes(b"no database at all" * 100)
    assert page_of(settings)["uptier_ledger_up", ()] == 0


def test_a_ledger_that_cannot_be_opened_is_told_and_the_page_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(settings: Settings) -> Engine:
        raise LedgerError("data directory /srv/uptier is not writable: name another")

    (tmp_path / "ledger.db").touch()
    monkeypatch.setattr("ledger.metrics.page.open_ledger", refuse)
    assert page_of(settings_of(tmp_path))["uptier_ledger_up", ()] == 0


@pytest.mark.parametrize(
    ("fault", "level"), [(KeyError("ours"), "WARNING"), (BrokenPipeError("theirs"), "DEBUG")]
)
def test_a_request_that_fails_is_a_warning_unless_its_client_hung_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    fault: Exception, level: str,
) -> None:  # fmt: skip
    import urllib.request

    def fail(page: Page) -> bytes:
        raise fault

    monkeypatch.setattr(Page, "text", fail)
    with (
        caplog.at_level("DEBUG", logger="ledger.metrics.server"),
        served(settings_of(tmp_path), "127.0.0.1", 0, names="--port") as address,
        pytest.raises(OSError),
    ):
        urllib.request.urlopen(address, timeout=10)
    assert [r.levelname for r in caplog.records if "a request failed" in r.message] == [level]


def test_the_page_is_served_and_a_taken_port_is_told(engine: Engine, tmp_path: Path) -> None:
    import urllib.request

    from config.errors import ConfigurationError

    settings = settings_of(tmp_path)
    with served(settings, "127.0.0.1", 0, names="--port") as address:
        with urllib.request.urlopen(address, timeout=10) as reply:
            text = reply.read().decode()
            assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "uptier_ledger_up 1.0" in text
        port = int(address.rpartition(":")[2].partition("/")[0])
        with (
            pytest.raises(ConfigurationError, match=f"port {port} is taken"),
            served(settings, "127.0.0.1", port, names="--port"),
        ):
            pass


def test_tallies_hold_no_text_of_anybody(engine: Engine, run_id: str) -> None:
    [one] = submit(engine, run_id, "a-key-of-mine")
    answer(engine, one, "tier1", 20)
    rule(engine, one, passed=True, now=30)
    with reading(engine) as connection:
        told = connection.execute(select(TABLES.tables["tally"].c.counts)).scalars().all()
    assert told
    for counts in map(json.loads, told):
        for key in counts:
            assert one not in key
            assert run_id not in key
            assert "a-key-of-mine" not in key


def test_payers_are_told_and_no_scrape_goes_through_the_budgets_of_all_requests(
    engine: Engine, tmp_path: Path
) -> None:
    moment = now()
    bounds = [Bound(payer_scope("ada"), 5), Bound(payer_scope("ada", moment), 4),
              Bound(payer_scope("ada", 0), 3), Bound("request:one", 2)]  # fmt: skip
    with writing(engine) as connection:
        assert reserve(connection, bounds, 1) is None
    asked: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *a: asked.append((a[2], a[3])))
    with reading(engine) as connection:
        found = [one for one in standing(connection, settings_of(tmp_path).catalog, moment)
                 if one.metric is catalog.BUDGET_RESERVED]  # fmt: skip
    assert {one.labels[0] for one in found} == {"day", "audit", "payer:ada", "payer_day:ada"}
    [(query, given)] = [one for one in asked if "FROM budget" in one[0]]
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", given).all()
    assert not [row for row in plan if row.detail.startswith("SCAN budget")]


def test_what_alerts_go_by_begins_at_nought(engine: Engine, tmp_path: Path) -> None:
    """To Prometheus a series that appears at 1 has not risen: the first would be missed."""
    found = page_of(settings_of(tmp_path))
    for kind in ("question", "other"):
        labels = (("kind", kind), ("lane", "none"), ("status", "dead"))
        assert found["uptier_decisions_settled_total", labels] == 0
    for lane in ("tier1", "tier2", "quality"):
        assert found["uptier_worker_deaths_total", (("lane", lane),)] == 0
