"""Workers that die under their work: nothing is lost, nothing settles twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from cli.session import Session, session
from config.settings import load_settings
from ledger.database import reading
from ledger.tables import TABLES
from routing.decision import ChoiceOutput, Decision, Status
from workers.stack_state import StackState

PROFILE = Path(__file__).parents[1] / "profiles_scripted.toml"
AB = ChoiceOutput(labels=("A", "B"))
ATTEMPTS = TABLES.tables["attempt"]


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    settings = load_settings(
        profile=str(PROFILE), data_dir=tmp_path, lease_s=2, stale_after_s=2, max_deliveries=2
    )
    with session(settings, mode="faults") as opened:
        yield opened


def question(prompt: str, key: str) -> Decision:
    return Decision(kind="question", prompt=prompt, output=AB, key=key, fallback="B")


def test_a_poison_decision_ends_with_its_fallback_and_its_neighbours_are_answered(
    live: Session,
) -> None:
    decisions = [question("easy", "one"), question("poison", "two"), question("easy", "three")]
    settled = live.client.gather(decisions, timeout_s=120)
    assert [s.status for s in settled] == [Status.ACCEPTED, Status.FALLBACK, Status.ACCEPTED]
    assert "2 times" in settled[1].reason


def test_a_worker_killed_under_load_loses_and_doubles_nothing(live: Session) -> None:
    decisions = [question("slow" if i % 3 else "easy", f"k{i}") for i in range(400)]
    ids = [i for start in range(0, 400, 20) for i in live.client.submit(decisions[start:][:20])]
    for name in ("tier1-1", "quality-1"):
        state = StackState.read(live.settings.stack_dir)
        assert state is not None
        worker = next(w for w in state.workers if w.name == name)
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGKILL)
    settled = live.client.wait(ids, timeout_s=120)
    assert Counter(s.status for s in settled) == {Status.ACCEPTED: 400}
    with reading(live.engine) as connection:
        doubled = select(ATTEMPTS.c.decision_id).group_by(
            ATTEMPTS.c.decision_id, ATTEMPTS.c.lane, ATTEMPTS.c.number
        )
        assert connection.execute(doubled.having(func.count() > 1)).all() == []
