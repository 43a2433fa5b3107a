"""A stack whose broker and ledger do not answer: it ends, and tells of itself, all the same."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from config.settings import Settings
from ledger.reports import Overview
from tests.unit.test_keeper import Notes
from workers import stack_owner, stack_status


class Silent(Notes):
    """A ledger behind a link that was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.back = threading.Event()

    def end(self) -> None:
        self.back.wait(60)


def test_a_ledger_that_is_away_does_not_hold_up_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = Silent()
    began = time.monotonic()
    stack_owner._end_ledger(ledger)
    assert time.monotonic() - began < 10
    ledger.back.set()
    assert "the ledger is not told that the workers ended" in caplog.text


def test_broker_and_ledger_are_asked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=20)

    def lengths(url: str, settings: Settings) -> tuple[None, str]:
        both.wait()
        return None, "the broker is away"

    def overview(settings: Settings) -> Overview:
        both.wait()
        return Overview()

    monkeypatch.setattr(stack_status, "_queue_lengths", lengths)
    monkeypatch.setattr(stack_status, "overview", overview)
    settings = Settings(
        profile="tiny", data_dir=tmp_path, broker_url="redis://127.0.0.1:1/0",
        database_url="postgresql+psycopg://127.0.0.1:1/none",
    )  # fmt: skip
    found = stack_status.stack_status(settings)
    assert found.broker_problem == "the broker is away"
    assert found.ledger_problem is None
