"""What the daemon's commands keep and refuse before anything is started, and what they show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cli.chat_screen import printable
from cli.chat_session import _alone
from cli.daemon import _refuse_own_house, _unfinished
from cli.memory import _private_run
from cli.output import plain
from config.errors import InputError
from config.settings import Settings
from config.swarm import Verdict
from ledger import memories, swarm
from ledger.approvals import Proposal
from ledger.database import migrate, open_ledger
from ledger.memories import NewMemory, Source
from ledger.runs import start_run
from ledger.swarm import MODE
from producers.swarm.questions import Order
from routing.decision import Privacy


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(data_dir=tmp_path, profile="tiny")
    migrate(found)
    return found


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    found = open_ledger(settings)
    yield found
    found.dispose()


def test_a_resumption_that_is_refused_changes_nothing(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    order = Order("test", str(tmp_path), 20)
    run = start_run(engine, mode=MODE, profile="tiny", now=1, config=order.config())
    for number in (1, 2):
        proposal = Proposal(run.id, number, "git_log", {}, "moderate", "reads", {})
        swarm.begin(engine, proposal, Verdict.DENY, "no", 1, 1)
    with pytest.raises(InputError, match="has done its 2 iterations"):
        _unfinished(settings, None, None, 2)
    found = swarm.find_daemon(engine)
    assert found is not None
    assert found.config == order.config()
    assert _unfinished(settings, None, None, 5).config["max_iterations"] == 5
    found = swarm.find_daemon(engine)
    assert found is not None
    # Only the one that works on the directory writes it.
    assert found.config["max_iterations"] == 20


def test_uptiers_own_files_are_nothing_to_work_on(settings: Settings, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path.parent):
        with pytest.raises(InputError, match="holds Uptier's own data directory"):
            _refuse_own_house(settings, place)
    _refuse_own_house(settings, tmp_path.parent / "beside")


def test_what_a_person_notes_in_private_stays_at_home(settings: Settings, engine: Engine) -> None:
    for level in (Privacy.MEDIUM, Privacy.HIGH):
        run_id = _private_run(engine, settings, level)
        memories.add(engine, NewMemory("bug", level.value, Source.PERSON, run_id), 1)
    assert [one.content for one in memories.query(engine)] == ["medium", "high"]
    assert [one.content for one in memories.query(engine, leaving=True)] == ["medium"]
    assert memories.topics(engine) == {"bug": 2}
    assert memories.topics(engine, leaving=True) == {"bug": 1}


def test_nothing_hides_in_what_a_person_is_to_approve() -> None:
    shown = plain('{"argv": ["rm", "\u202efdp.exe", "\x1b[2K", "\u200b", "\u00e4"]}\n')
    assert shown == '{"argv": ["rm", "\\u202efdp.exe", "\\x1b[2K", "\\u200b", "\u00e4"]}\n'
    assert "\x1b" not in printable("\x1b]0;title\x07")


def test_a_session_is_open_once(settings: Settings, engine: Engine) -> None:
    run = start_run(engine, mode="session", profile="tiny", now=1)
    with _alone(settings, run):
        with pytest.raises(InputError, match="is open elsewhere"), _alone(settings, run):
            pass
        with _alone(settings, None):
            pass
    with _alone(settings, run):
        pass
