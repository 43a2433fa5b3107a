"""``uptier cancel`` from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from config.settings import load_settings
from ledger import lifecycle
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.runs import start_run
from routing.decision import Status
from tests.unit.ledgers import planned


def cancel(data: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "cli.main", "cancel", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "UPTIER_DATA_DIR": str(data)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).strip()


def test_what_is_open_of_a_run_or_one_decision_is_cancelled(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    migrate(settings)
    engine = open_ledger(settings)
    run = start_run(engine, mode="test", profile="tiny", now=now())
    items = [planned(key, "tier1", fallback="B") for key in ("a", "b", "c")]
    ids = lifecycle.submit(engine, run.id, items, now()).ids
    assert cancel(tmp_path, "--decision", ids[0]) == (0, "cancelled 1 open decisions")
    assert cancel(tmp_path, run.id) == (0, "cancelled 2 open decisions")
    assert cancel(tmp_path, run.id) == (0, "cancelled 0 open decisions")
    settled = lifecycle.find_settled(engine, ids)
    assert {s.status for s in settled} == {Status.CANCELLED}
    assert {s.answer for s in settled} == {"B"}
    engine.dispose()
    assert cancel(tmp_path, "nosuch")[0] == 2
    assert cancel(tmp_path)[0] == 2
