"""Paid calls of real workers: budgets, the breaker, cancellation; the provider is a stand-in."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cli.session import Session, session
from config.load import load_catalog
from ledger import providers
from ledger.budgets import usage
from ledger.clock import now
from ledger.database import writing
from ledger.reports import report
from ledger.runs import start_run
from ledger.tables import TABLES
from ledger.trail import trail
from producers.client import Client
from routing.decision import ChoiceOutput, Decision, Preferences, Settled, Status
from tests.integration.places import Place
from tests.standin import MessagesStandin, Reply, fault, message
from workers.stack_state import StackState
from workers.stack_status import stack_status

PROFILE = Path(__file__).parents[1] / "profiles_paid.toml"
AB = ChoiceOutput(labels=("A", "B"))
COUNTER = iter(range(1_000_000))


@dataclass
class Provider:
    """What the stand-in answers now."""

    reply: Reply = field(default_factory=lambda: message("B"))

    def __call__(self, _number: int, _body: Reply) -> Reply:
        return self.reply


@dataclass
class Live:
    """An open session and the provider behind it."""

    session: Session
    standin: MessagesStandin
    provider: Provider

    def decisions(self, *prompts: str, kind: str = "conflict", **more: Any) -> list[Decision]:
        return [
            Decision(kind=kind, prompt=p, output=AB, key=f"k{next(COUNTER)}", **more)
            for p in prompts
        ]

    def ask(self, *prompts: str, kind: str = "conflict", **more: Any) -> list[Settled]:
        return self.session.client.gather(self.decisions(*prompts, kind=kind, **more), timeout_s=60)

    def breaker(self) -> providers.ProviderState:
        [state] = providers.states(self.session.engine, self.session.settings.catalog, now())
        return state


@pytest.fixture(scope="module")
def stage(place: Place) -> Iterator[Live]:
    provider = Provider()
    with pytest.MonkeyPatch.context() as patch, MessagesStandin(provider) as standin:
        patch.setenv("ANTHROPIC_API_KEY", "sk-test")
        patch.setenv("ANTHROPIC_BASE_URL", standin.url)
        settings = place.settings(profile=str(PROFILE))
        with session(settings, mode="test", own_workers=True) as opened:
            yield Live(opened, standin, provider)


@pytest.fixture
def live(stage: Live) -> Iterator[Live]:
    """A run of its own, a provider of whom nothing is known, and a stand-in without bills."""
    settings, engine = stage.session.settings, stage.session.engine
    with writing(engine) as connection:
        connection.execute(TABLES.tables["provider"].delete())
    stage.provider.reply = message("B")
    stage.standin.requests.clear()
    stage.standin.bills.clear()
    state = StackState.read(settings.stack_dir)
    assert state is not None
    run = start_run(engine, mode="test", profile=settings.profile, now=now())
    with Client(settings, state.broker_url, run) as client:
        yield replace(stage, session=Session(settings, engine, run, client))


def test_budgets_of_agents_requests_and_runs(live: Live) -> None:
    of_ann = live.ask("one", "two", "three", "four", agent_id="ann", day=1)
    assert Counter(s.status for s in of_ann) == {Status.ACCEPTED: 3, Status.BUDGET: 1}
    [refused] = [s for s in of_ann if s.status is Status.BUDGET]
    assert (refused.lane, refused.answer in AB.labels) == ("tier2", True)
    assert "3 of 3 calls are made" in refused.reason
    [tomorrow] = live.ask("five", agent_id="ann", day=2)
    assert tomorrow.status is Status.ACCEPTED

    [dear] = live.ask("six", preferences=Preferences(max_cost_usd=Decimal("0.000001")))
    assert (dear.status, dear.lane, dear.cost_micros) == (Status.BUDGET, "tier2", 0)

    [climbed] = live.ask("hard nobody knows", kind="question", agent_id="ann", day=1)
    assert (climbed.status, climbed.lane, climbed.answer) == (Status.BUDGET, "tier2", "B")

    live.provider.reply = message("A", tokens_in=10, tokens_out=30)
    many = live.ask(*(f"many {i}" for i in range(400)))
    assert {s.status for s in many} == {Status.ACCEPTED, Status.BUDGET}
    assert all(s.answer for s in many)
    billed = sum(bill.micros for bill in live.standin.bills)
    assert 9_500 < billed <= 10_000
    used = {
        u.scope.split(":")[0]: u for u in usage(live.session.engine, live.session.run.id, 0.8, 0)
    }
    assert used["run"].spent_usd == pytest.approx(billed / 1e6)
    assert used["run"].reserved_usd == 0
    found = report(live.session.engine, live.session.settings,
                   load_catalog(str(PROFILE)), live.session.run)  # fmt: skip
    assert found.cost_usd == pytest.approx(billed / 1e6)
    assert any(u.alert for u in found.budgets)


def test_an_outage_opens_the_breaker_and_a_success_closes_it(live: Live) -> None:
    live.provider.reply = fault(500, "api_error")
    during = live.ask(*(f"during {i}" for i in range(12)))
    assert {s.status for s in during} <= {Status.DEGRADED, Status.ACCEPTED}
    assert all(s.lane == "tier2" and s.answer for s in during)
    asked = len(live.standin.requests)
    assert asked < 12
    shown = stack_status(live.session.settings).providers
    assert [p.breaker for p in shown] in (["open"], ["half-open"])
    planned = live.ask("while it is open")
    assert planned[0].lane == "tier2"
    live.provider.reply = message("B")
    deadline = time.monotonic() + 30
    while live.ask("is it back?")[0].lane != "tier3":
        assert time.monotonic() < deadline
    assert live.breaker().breaker == "closed"
    assert live.standin.bills


def test_a_used_up_account_is_not_called_again(live: Live) -> None:
    live.provider.reply = fault(402, "billing_error", "Your credit balance is too low")
    assert live.ask("first")[0].lane == "tier2"
    state = live.breaker()
    assert state.breaker == "open"
    assert state.reopens_in_s is not None
    assert state.reopens_in_s > 3900
    asked = len(live.standin.requests)
    assert live.ask("second")[0].lane == "tier2"
    assert len(live.standin.requests) == asked


def test_a_cancelled_decision_settles_at_once_and_its_call_is_booked(live: Live) -> None:
    live.provider.reply = message("B") | {"hang_s": 1.5}
    [decision] = live.session.client.submit(live.decisions("never mind"))
    while not live.standin.requests:
        time.sleep(0.05)
    assert live.session.client.cancel([decision]) == 1
    [settled] = live.session.client.wait([decision], timeout_s=5)
    assert (settled.status, settled.answer) == (Status.CANCELLED, "")
    deadline = time.monotonic() + 20
    while trail(live.session.engine, decision).attempts[0].outcome == "intent":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [attempt] = trail(live.session.engine, decision).attempts
    assert attempt.outcome == "late"
    assert round(attempt.cost_usd * 1e6) == live.standin.bills[0].micros
