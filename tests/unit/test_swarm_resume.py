"""A daemon that ended in the midst of things goes on, and does nothing twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from config.swarm import Verdict
from ledger import approvals, memories, swarm
from ledger.memories import NewMemory, Source
from ledger.swarm import State
from producers.swarm import tools
from tests.unit.daemons import (
    EDIT,
    Killed,
    after_reading,
    closed,
    cut,
    decide,
    does,
    exec_ground,
    ground,
    killed,
    swarm_catalog,
)  # fmt: skip

__all__ = ["closed"]


def test_an_end_between_answer_and_intent_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    first = swarm.begin
    calls = iter(range(2))
    monkeypatch.setattr(
        swarm, "begin", lambda *a, **k: first(*a, **k) if next(calls) == 0 else killed()
    )
    with pytest.raises(Killed):
        here.work()
    monkeypatch.setattr(swarm, "begin", first)
    before = len(here.answers.asked)
    here.work()
    assert len(here.answers.asked) == before
    assert (here.root / "notes.md").read_text() == "second line\n"


def test_an_edit_that_was_made_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = {"path": "notes.md", "find": "", "replace": "more"}
    here = ground(tmp_path, after_reading(does("edit_file", **edit)), max_iterations=2)
    first = swarm.finish
    calls = iter(range(2))
    monkeypatch.setattr(
        swarm, "finish", lambda *a, **k: first(*a, **k) if next(calls) == 0 else killed()
    )
    with pytest.raises(Killed):
        here.work()
    assert here.steps[1].state is State.INTENT
    monkeypatch.setattr(swarm, "finish", first)
    here.work()
    assert (here.root / "notes.md").read_text() == "first line\nmore\n"
    assert (here.steps[1].state, here.steps[1].note) == (State.DONE, "done, as the file shows")


def test_an_edit_that_was_not_made_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    cut(monkeypatch, here, tools.Directory, "write")
    assert here.steps[1].state is State.INTENT
    here.work()
    assert (here.root / "notes.md").read_text() == "second line\n"
    assert here.steps[1].state is State.DONE


def test_an_edit_of_a_file_that_is_neither_old_nor_new_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    cut(monkeypatch, here, tools.Directory, "write")
    (here.root / "notes.md").write_text("something else\n")
    here.work()
    assert here.steps[1].state is State.UNKNOWN
    assert (here.root / "notes.md").read_text() == "something else\n"


def test_a_program_in_whose_midst_it_ended_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = exec_ground(tmp_path)
    here.work()
    decide(here, approve=True)
    cut(monkeypatch, here, swarm, "finish")
    assert (here.root / "touched").exists()
    (here.root / "touched").unlink()
    here.work()
    assert not (here.root / "touched").exists()
    assert [s.state for s in here.steps] == [State.WAITING, State.UNKNOWN]


def test_what_may_have_taken_effect_is_begun_again_by_a_person_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(
        tmp_path, does("run", command="once"), max_iterations=2,
        catalog=swarm_catalog(commands={"once": ("touch", "touched"), "other": ("true",)}),
    )  # fmt: skip
    cut(monkeypatch, here, swarm, "finish")
    (here.root / "touched").unlink()
    here.work()
    assert [s.state for s in here.steps] == [State.UNKNOWN, State.WAITING]
    assert not (here.root / "touched").exists()
    decide(here, approve=True)
    here.work()
    assert (here.root / "touched").exists()


def test_what_only_reads_or_records_is_done_again_and_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = does("write_memory", content="a fact")
    here = ground(tmp_path, after_reading(answer), max_iterations=2)
    cut(monkeypatch, here, swarm, "finish")
    assert here.steps[0].state is State.INTENT
    here.work()
    assert [s.state for s in here.steps] == [State.DONE, State.DONE]
    assert len(memories.query(here.engine)) == 1
    swarm.finish(here.engine, here.steps[1].id,
                 swarm.Outcome(State.DONE, "", "", NewMemory("bug", "twice", Source.DAEMON)),
                 here.clock())  # fmt: skip
    assert len(memories.query(here.engine)) == 1


def test_what_was_begun_and_is_denied_by_now_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    cut(monkeypatch, here, tools.Directory, "write")
    allowed = here.catalog.swarm.governor
    rulings = {**allowed.rulings, "edit_file": Verdict.DENY}
    here.catalog = swarm_catalog(governor=allowed.model_copy(update={"rulings": rulings}))
    here.order = replace(here.order, actions=("read_file", "search_text"))
    here.work()
    assert (here.root / "notes.md").read_text() == "first line\n"
    assert here.steps[1].state is State.DENIED
    assert approvals.audit_log(here.engine)[-1].ruling == "deny"
