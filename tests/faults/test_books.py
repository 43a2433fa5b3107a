"""The books see what they are there to see."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update

from config.settings import Settings
from ledger import lifecycle
from ledger.clock import now
from ledger.database import migrate, open_ledger, writing
from ledger.outbox import new_id
from ledger.records import Planned
from ledger.runs import start_run
from ledger.tables import TABLES
from routing.decision import ChoiceOutput, Decision
from routing.policy import plan
from tests.faults.books import Findings, audit, keep_trail
from tests.faults.ground import settings_at

ATTEMPTS = TABLES.tables["attempt"]
DECISIONS = TABLES.tables["decision"]


class Books:
    """A ledger with one decision, to be spoilt by hand."""

    def __init__(self, settings: Settings) -> None:
        self.engine: Engine = open_ledger(settings)
        keep_trail(self.engine)
        self.run = start_run(self.engine, mode="test", profile="profile", now=now())
        output = ChoiceOutput(labels=("A", "B"))
        decision = Decision(kind="question", prompt="easy? [k]", output=output, key="k")
        planned = Planned(decision, plan(decision, settings.catalog, settings.absent_lanes))
        self.id = lifecycle.submit(self.engine, self.run.id, [planned], now()).ids[0]

    def settle(self, status: str = "accepted") -> None:
        self.change(state="settled", status=status, answer="A")

    def change(self, **values: Any) -> None:
        statement = update(DECISIONS).where(DECISIONS.c.id == self.id)
        with writing(self.engine) as connection:
            connection.execute(statement.values(**values))

    def attempt(self, number: int, outcome: str, cost: int = 0, estimate: int = 0) -> None:
        row = {"id": new_id(), "decision_id": self.id, "lane": "tier3", "number": number,
               "model": "m", "outcome": outcome, "cost_micros": cost,
               "estimated_micros": estimate, "created_at": now()}  # fmt: skip
        with writing(self.engine) as connection:
            connection.execute(ATTEMPTS.insert().values(**row))
        self.change(cost_micros=DECISIONS.c.cost_micros + cost)

    def audit(self, bills: Sequence[int] = (), **more: Any) -> Findings:
        return audit(self.engine, self.run.id, {"k": bills}, **more)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger without a row; migrating takes longer than all else here."""
    settings = settings_at(tmp_path_factory.mktemp("empty"))
    migrate(settings)
    return settings.data_dir / "ledger.db"


@pytest.fixture
def books(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    shutil.copy(empty, tmp_path)
    opened = Books(settings_at(tmp_path))
    yield opened
    opened.engine.dispose()


def counts(found: Findings) -> tuple[int, int, int, int]:
    return len(found.lost), len(found.doubled), len(found.billed_twice), len(found.other)


def test_a_decision_answered_paid_and_settled_once_is_fine(books: Books) -> None:
    books.attempt(1, "answered", cost=300)
    books.settle()
    assert counts(books.audit([300])) == (0, 0, 0, 0)


def test_an_open_decision_and_one_that_the_ledger_forgot_are_lost(books: Books) -> None:
    assert counts(books.audit(submitted=[books.id, "gone"])) == (2, 0, 0, 0)


def test_a_decision_that_ended_without_an_answer_is_lost(books: Books) -> None:
    books.settle("dead")
    assert counts(books.audit()) == (1, 0, 0, 0)


def test_a_second_settlement_is_seen_though_the_row_looks_the_same(books: Books) -> None:
    books.settle()
    books.settle()
    assert counts(books.audit()) == (0, 1, 0, 0)


def test_a_decision_that_was_opened_again_is_seen(books: Books) -> None:
    books.settle()
    books.change(state="queued")
    books.settle()
    assert counts(books.audit()) == (0, 1, 0, 0)


def test_a_lane_that_answered_twice_is_seen(books: Books) -> None:
    books.attempt(1, "answered", cost=300)
    books.attempt(2, "answered", cost=301)
    books.settle()
    assert counts(books.audit([300, 301])) == (0, 1, 0, 0)


def test_a_second_answer_after_a_failure_is_no_double(books: Books) -> None:
    books.attempt(1, "failed")
    books.attempt(2, "answered", cost=300)
    books.settle()
    assert counts(books.audit([300])) == (0, 0, 0, 0)


def test_a_bill_that_no_attempt_accounts_for_is_seen(books: Books) -> None:
    books.attempt(1, "answered", cost=300)
    books.settle()
    assert counts(books.audit([300, 304])) == (0, 0, 1, 0)


def test_an_unknown_charge_accounts_for_one_bill_only(books: Books) -> None:
    books.attempt(1, "unknown_charge", estimate=400)
    books.attempt(2, "answered", cost=304)
    books.settle()
    assert counts(books.audit([300, 304])) == (0, 0, 0, 0)
    assert counts(books.audit([300, 302, 304])) == (0, 0, 1, 0)


def test_a_call_that_must_not_be_repeated_and_was_is_seen(books: Books) -> None:
    books.attempt(1, "unknown_charge", estimate=400)
    books.attempt(2, "answered", cost=304)
    books.settle()
    assert counts(books.audit([300, 304], once=["tier3"])) == (0, 0, 1, 0)


def test_costs_that_nobody_billed_are_seen(books: Books) -> None:
    books.attempt(1, "answered", cost=300)
    books.settle()
    assert counts(books.audit([299])) == (0, 0, 0, 1)
