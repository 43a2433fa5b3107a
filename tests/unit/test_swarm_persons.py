"""What needs a person: it waits, is done once and just so, or never."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text, update

from config.errors import InputError
from config.swarm import Governor
from ledger import approvals, swarm
from ledger.approvals import APPROVALS, Standing
from ledger.database import writing
from ledger.swarm import State
from producers.swarm.daemon import Ending
from routing.decision import Status
from tests.unit.daemons import (
    EDIT,
    after_reading,
    closed,
    decide,
    does,
    exec_ground,
    ground,
    swarm_catalog,
)  # fmt: skip

__all__ = ["closed"]


def test_what_needs_a_person_waits_and_the_daemon_goes_on(tmp_path: Path) -> None:
    here = exec_ground(tmp_path, max_iterations=2)
    assert here.work() is Ending.DONE
    assert [s.state for s in here.steps] == [State.WAITING, State.DONE]
    assert len(here.approvals(Standing.PENDING)) == 1
    assert not (here.root / "touched").exists()


def test_an_approved_action_is_done_once_also_after_the_last_iteration(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    decide(here, approve=True)
    assert here.work() is Ending.DONE
    assert (here.root / "touched").exists()
    (here.root / "touched").unlink()
    here.work()
    assert not (here.root / "touched").exists()
    assert [s.state for s in here.steps] == [State.WAITING, State.DONE]
    assert here.approvals()[0].state is Standing.USED
    log = [one.ruling for one in approvals.audit_log(here.engine)]
    assert log == ["escalate", "approved", "used"]


def test_a_rejected_action_is_not_done(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    id = decide(here, approve=False)
    here.order = replace(here.order, max_iterations=8)
    here.work()
    assert [s.state for s in here.steps if s.action == "exec"] == [State.WAITING, State.DENIED]
    assert not (here.root / "touched").exists()
    with pytest.raises(ValueError.__base__, match="rejected already"):
        approvals.decide(here.engine, id, approve=True, note="", now=here.clock())


def test_an_approval_that_was_not_used_can_be_taken_back(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    id = decide(here, approve=True)
    approvals.decide(here.engine, id, approve=False, note="no", now=here.clock())
    here.work()
    assert not (here.root / "touched").exists()
    assert [one.ruling for one in approvals.audit_log(here.engine)] == [
        "escalate", "approved", "rejected",
    ]  # fmt: skip
    with pytest.raises(InputError, match="rejected already"):
        approvals.decide(here.engine, id, approve=False, note="", now=here.clock())


def test_a_used_approval_cannot_be_taken_back(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    id = decide(here, approve=True)
    here.work()
    with pytest.raises(InputError, match="used already: only pending and approved ones"):
        approvals.decide(here.engine, id, approve=False, note="", now=here.clock())


def test_what_was_rejected_is_not_asked_again(tmp_path: Path) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=3)
    here.answers.status = Status.DEGRADED
    here.order = replace(here.order, max_iterations=2)
    here.work()
    decide(here, approve=False)
    assert here.steps[1].note == "rejected by a person: so"
    here.order = replace(here.order, max_iterations=3)
    here.work()
    assert (here.steps[2].state, here.steps[2].note) == (
        State.DENIED, "denied: a person rejected it before so",
    )  # fmt: skip
    assert len(here.approvals()) == 1


def test_an_approval_lapses(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    decide(here, approve=True)
    here.clock.sleep(here.catalog.swarm.governor.approval_ttl_s)
    here.work()
    assert not (here.root / "touched").exists()
    assert here.approvals()[0].state is Standing.EXPIRED


def test_other_arguments_than_the_approved_ones_are_not_used(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    id = decide(here, approve=True)
    with writing(here.engine) as connection:
        connection.execute(
            update(APPROVALS)
            .where(APPROVALS.c.id == id)
            .values(arguments=json.dumps({"argv": ["touch", "other"]}))
        )
    here.work()
    assert list(here.root.glob("*o*")) == [here.root / "notes.md"]
    assert here.approvals()[0].note == "its arguments are not those that were approved"


def test_what_is_denied_by_now_is_not_done_though_it_was_approved(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    decide(here, approve=True)
    here.catalog = swarm_catalog(governor=Governor.model_validate({"rulings": {"exec": "deny"}}))
    here.work()
    assert not (here.root / "touched").exists()
    assert here.approvals()[0].state is Standing.REJECTED


def test_an_approved_edit_of_a_file_that_was_changed_since_is_not_made(tmp_path: Path) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    here.answers.status = Status.DEGRADED
    here.work()
    decide(here, approve=True)
    (here.root / "notes.md").write_text("first line, by a person\n")
    here.work()
    assert (here.root / "notes.md").read_text() == "first line, by a person\n"
    assert "changed since" in here.steps[2].note


def test_a_command_whose_words_are_denied_never_reaches_a_person(tmp_path: Path) -> None:
    here = ground(tmp_path, does("exec", argv=["dropdb", "production"]))
    here.work()
    assert here.steps[0].state is State.DENIED
    assert here.approvals() == []
    [line] = approvals.audit_log(here.engine)
    assert (line.ruling, line.arguments) == ("deny", {"argv": ["dropdb", "production"]})


def test_a_daemon_that_waits_goes_on_when_somebody_has_seen_to_it(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            decide(here, approve=True)

    here.clock.sleep = sleep  # type: ignore[method-assign]
    assert here.work(waits=True) is Ending.DONE
    assert (here.root / "touched").exists()


def test_a_daemons_daemon_works_within_the_same_bounds_and_asks_nobody(tmp_path: Path) -> None:
    here = ground(tmp_path, does("spawn_daemon", objective="sub"))
    here.work()
    decide(here, approve=True)
    here.work()
    assert here.steps[1].output.startswith(
        "all iterations are done; objective: sub\niteration 5 of 5"
    )
    with here.engine.connect() as connection:
        [child] = connection.execute(text("select id from run where mode = 'daemon-child'")).all()
    inner = swarm.steps(here.engine, child.id)
    assert "spawn_daemon" not in {s.action for s in inner}
    assert {s.state for s in inner} <= {State.DONE, State.FAILED, State.DENIED}


def test_an_approved_command_that_is_another_program_by_now_is_not_run(tmp_path: Path) -> None:
    asks = Governor.model_validate({"rulings": {"run": "escalate"}})
    said = swarm_catalog(governor=asks, commands={"check": ("touch", "approved")})
    here = ground(tmp_path, does("run", command="check"), catalog=said, actions=("run",))
    here.work()
    [request] = here.approvals(Standing.PENDING)
    assert json.loads(request.evidence["program"]) == ["touch", "approved"]
    decide(here, approve=True)
    here.catalog = swarm_catalog(governor=asks, commands={"check": ("touch", "other")})
    here.work()
    assert [s.state for s in here.steps] == [State.WAITING, State.FAILED]
    assert "another program" in here.steps[1].note
    assert not (here.root / "other").exists()


def test_an_approved_command_that_is_gone_by_now_fails_in_one_line(tmp_path: Path) -> None:
    asks = Governor.model_validate({"rulings": {"run": "escalate"}})
    said = swarm_catalog(governor=asks, commands={"check": ("touch", "approved")})
    here = ground(tmp_path, does("run", command="check"), catalog=said, actions=("run",))
    here.work()
    decide(here, approve=True)
    here.catalog = swarm_catalog(governor=asks, commands={})
    here.work()
    assert here.steps[1].state is State.FAILED
    assert "no command 'check'" in here.steps[1].note
