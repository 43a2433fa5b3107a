"""Audits and certificates of real workers; the provider is a stand-in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from cli.session import Session, session
from cli.sources import of_run
from config.settings import load_settings
from ledger import policies
from ledger.certificates import Standing, history, in_force
from ledger.clock import now
from ledger.labels import Source, by_person, find_decision, labelled
from ledger.lane_history import LaneHistory, count
from ledger.reports import Report, overview, report
from ledger.runs import start_run
from producers.client import Client
from routing.decision import ChoiceOutput, Decision, Preferences, Privacy, Settled
from routing.evaluation import evaluate
from routing.guarantee import Goal
from tests.integration.conftest import not_here
from tests.integration.places import Absent, postgres
from tests.standin import MessagesStandin, Reply, message
from tests.unit.audited_house import House
from tests.unit.tried_runs import sayings, tried_run
from workers.certifying import certify, watch
from workers.policies import adopt
from workers.policies import watch as watch_policy
from workers.stack_state import StackState

PROFILE = Path(__file__).parents[1] / "profiles_audited.toml"
AB = ChoiceOutput(labels=("A", "B"))
COUNTER = iter(range(1_000_000))


@dataclass
class Live:
    """A run of its own on workers that all tests share, and the provider behind them."""

    session: Session
    client: Client
    run: Any
    standin: MessagesStandin

    def ask(self, *prompts: str, kind: str = "question", **more: Any) -> list[Settled]:
        decisions = [
            Decision(kind=kind, prompt=p, output=AB, key=f"k{next(COUNTER)}", **more)
            for p in prompts
        ]
        return self.client.gather(decisions, timeout_s=60)

    def report(self) -> Report:
        settings = self.session.settings
        return report(self.session.engine, settings, settings.catalog, self.run)

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, self.report().audits
            time.sleep(0.1)


@pytest.fixture(scope="module")
def provider() -> Iterator[MessagesStandin]:
    """It says B to everything."""

    def replies(_number: int, _body: Reply) -> Reply:
        return message("B", tokens_in=20, tokens_out=1)

    with pytest.MonkeyPatch.context() as patch, MessagesStandin(replies) as standin:
        for name in ("UPTIER_BROKER_URL", "UPTIER_DATABASE_URL", "UPTIER_PROFILE"):
            patch.delenv(name, raising=False)
        patch.setenv("ANTHROPIC_API_KEY", "sk-test")
        patch.setenv("ANTHROPIC_BASE_URL", standin.url)
        yield standin


@pytest.fixture(scope="module")
def stage(
    provider: MessagesStandin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Session, MessagesStandin]]:
    settings = load_settings(data_dir=tmp_path_factory.mktemp("audit"), profile=str(PROFILE))
    with session(settings, mode="test", own_workers=True) as opened:
        yield opened, provider


@pytest.fixture
def live(stage: tuple[Session, MessagesStandin]) -> Iterator[Live]:
    opened, standin = stage
    standin.requests.clear()
    standin.bills.clear()
    state = StackState.read(opened.settings.stack_dir)
    assert state is not None
    run = start_run(opened.engine, mode="test", profile=opened.settings.profile, now=now())
    with Client(opened.settings, state.broker_url, run) as client:
        yield Live(opened, client, run, standin)


def test_accepted_answers_are_audited_and_labelled_beside_the_run(live: Live) -> None:
    settled = live.ask("sure one", "vague two", "hard three")
    assert [s.lane for s in settled] == ["tier1", "tier1", "tier3"]
    assert [s.cost_micros for s in settled[:2]] == [0, 0]
    live.until(lambda: live.report().audits.open == 0)
    audits = live.report().audits
    assert (audits.asked, audits.labelled, audits.agreed, audits.refused) == (2, 2, 1, 0)
    assert live.report().decisions.total == 3
    assert audits.cost_usd == pytest.approx(sum(b.micros for b in live.standin.bills[:2]) / 1e6)
    told = {(o.lane, o.correct, o.source, o.propensity) for o in labelled(live.session.engine)}
    assert told == {
        ("tier1", True, Source.AUDIT, 1.0), ("tier1", False, Source.AUDIT, 1.0),
        ("tier1", False, Source.TOP, 1.0), ("tier2", False, Source.TOP, 1.0),
    }  # fmt: skip


def test_private_decisions_are_never_audited_in_the_cloud(live: Live) -> None:
    wishes = Preferences(privacy=Privacy.HIGH)
    live.ask(*(f"sure secret {n}" for n in range(5)), preferences=wishes)
    live.ask("sure and open", kind="question")
    live.until(lambda: live.report().audits.open == 0)
    assert live.report().audits.asked == 1
    assert not any("secret" in str(r["body"]) for r in live.standin.requests)


def test_a_used_up_budget_ends_audits_and_nothing_else(live: Live) -> None:
    settled = live.ask(*(f"sure {n}" for n in range(300)))
    assert {s.status.value for s in settled} == {"accepted"}
    live.until(lambda: live.report().audits.open == 0)
    audits = live.report().audits
    assert audits.asked == 300
    assert audits.labelled > 0
    assert audits.refused > 0
    assert sum(bill.micros for bill in live.standin.bills) <= 2_000
    [used] = [use for use in live.report().budgets if use.scope.startswith("audit:")]
    assert used.limit_usd == 0.002
    assert used.reserved_usd == 0
    assert used.alert


def test_labels_certify_a_lane_and_drift_takes_that_back(
    provider: MessagesStandin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UPTIER_PROFILE", str(PROFILE))
    settings = load_settings()
    provider.requests.clear()

    def answered(live: Session, what: str, count: int) -> list[str | None]:
        asked = [
            Decision(kind="certain", prompt=f"{what} {n}", output=AB, key=f"{what}{n}")
            for n in range(count)
        ]
        return [one.lane for one in live.client.gather(asked, timeout_s=100)]

    with session(settings, mode="test", own_workers=True) as before:
        assert set(answered(before, "sure", 60)) == {"tier3"}
    assert len(provider.requests) == 60

    assert run(["certify", "--json"]) == 0
    [made] = json.loads(capsys.readouterr().out)["certificates"]
    assert (made["kind"], made["lane"], made["standing"]) == ("certain", "tier1", "in_force")
    assert (made["thresholds"], made["accepted"], made["wrong"]) == ({"B": 0.9}, 60, 0)

    with session(settings, mode="test", own_workers=True) as after:
        assert set(answered(after, "surely", 20)) == {"tier1"}
        assert len(provider.requests) == 60
        assert set(answered(after, "vague", 60)) == {"tier3"}
        watch(after.engine, now())
        assert in_force(after.engine) == []
        [lapsed] = history(after.engine, Standing.LAPSED)
        assert "drifted" in lapsed.reason
        assert run(["status"]) == 0
    assert "certain on tier1 lapsed: its scores have drifted" in capsys.readouterr().out


@pytest.fixture(scope="module", params=["embedded", "postgres"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Settings of a ledger of its own on either database."""
    if request.param == "embedded":
        yield {"data_dir": tmp_path_factory.mktemp("ledger")}
        return
    with ExitStack() as undo:
        try:
            given = undo.enter_context(postgres(tmp_path_factory.mktemp("ledger")))
        except Absent as error:
            not_here(str(error))
        yield {"data_dir": tmp_path_factory.mktemp("ledger"), **given}


def test_labels_certificates_and_counts_on_every_database(
    provider: MessagesStandin, database: dict[str, Any]
) -> None:
    folder = database["data_dir"]
    house = House(folder, **database)
    asked = house.ask()
    house.settle(asked, ("A", 0.9))
    house.settle(house.audits()[0]["id"], ("B", None))
    assert house.labels() == [("tier1", False, "audit", 1.0)]
    row = find_decision(house.engine, house.run_id, asked)
    assert row is not None
    assert by_person(house.engine, row, "A", right=True, now=9) == 1
    assert by_person(house.engine, row, "A", right=True, now=9) == 1
    for _ in range(60):
        house.settle(house.ask("certain"), ("A", 0.9), ("A", 0.5), ("A", None))
    catalog = house.settings.catalog
    certify(house.engine, catalog, house.clock())
    [made] = in_force(house.engine)
    assert (made.scope.lane, made.certificate.n) == ("tier1", 60)
    assert watch(house.engine, house.clock()) == []
    count(house.engine, house.clock())
    learning = catalog.routing.model_copy(update={"learn": True})
    known = catalog.model_copy(update={"routing": learning})
    learned = LaneHistory(house.engine, known, house.clock).learned()
    assert learned is not None
    tried = {place: (one.tried, one.good) for place, one in learned.tried.items()}
    assert tried == {
        ("question", "tier1"): (1, 1), ("certain", "tier1"): (60, 0),
        ("certain", "tier2"): (60, 0), ("certain", "tier3"): (60, 60),
    }  # fmt: skip
    assert overview(house.settings).certificates[0].kind == "certain"
    house.engine.dispose()


def test_a_policy_is_adopted_gone_by_and_lapses_on_every_database(
    provider: MessagesStandin, database: dict[str, Any]
) -> None:
    house = House(database["data_dir"], **database)
    catalog, engine = house.settings.catalog, house.engine
    tried_run(house, "taught", {"sampled": sayings(1, 400, {"tier2": 0.8})})
    source = of_run(house.settings, "taught", 0, adopt=True)
    goal = Goal(0.9)
    found = evaluate(source.rows.take(source.calibration), source.rows.take(~source.calibration),
                     goal)  # fmt: skip
    assert found.learnt is not None
    adopt(engine, catalog, "taught", found.learnt, goal, 200, house.clock())
    kept = adopt(engine, catalog, "taught", found.learnt, goal, 200, house.clock())
    assert [one.standing.value for one in policies.history(engine)] == ["in_force", "replaced"]
    house.now += policies.REREAD_US
    settled = house.settle(house.ask("sampled"), ("A", 0.985))
    assert settled["reason"].endswith("accepted by the policy learnt from run taught")
    assert watch_policy(engine, catalog, house.clock()) is None
    assert (state := policies.in_force(engine)) is not None
    assert state.seen > kept.seen
    asked = house.ask("sampled")
    house.answer(asked, "A", 0.985, fingerprint="new")
    house.checker.check([asked])
    assert watch_policy(engine, catalog, house.clock()) is not None
    shown = policies.state(house.settings)
    assert shown is not None
    assert shown.reason == "sampled on tier1: fingerprint was 'f.fast' and is 'new'"
    assert not policies.retire(engine, house.clock())
    policies.drop_late(engine, house.clock())
    engine.dispose()
