"""What daemons keep, on every database: intents, requests to persons, the audit log, memories."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from config.swarm import Verdict
from ledger import approvals, memories, swarm
from ledger.approvals import Proposal, Standing
from ledger.clock import SECOND
from ledger.database import migrate, open_ledger
from ledger.memories import NewMemory, Source
from ledger.runs import start_run
from ledger.swarm import Outcome, State
from tests.integration.places import Place

NOW = 1_000 * SECOND


@pytest.fixture
def engine(place: Place) -> Iterator[Engine]:
    settings = place.settings()
    migrate(settings)
    opened = open_ledger(settings)
    yield opened
    opened.dispose()


def proposal(run: str, iteration: int, name: str = "touched") -> Proposal:
    return Proposal(run, iteration, "exec", {"argv": ["touch", name]}, "complex", "changes", {})


def test_a_request_is_made_approved_used_and_done_once(engine: Engine) -> None:
    run = start_run(engine, mode="daemon", profile="test", now=NOW, config={"objective": "x"}).id
    step = swarm.begin(engine, proposal(run, 1), Verdict.ESCALATE, "so", 60, NOW)
    assert step.state is State.WAITING
    # The same once more is the same request; the same iteration is the same step.
    assert swarm.begin(engine, proposal(run, 1), Verdict.ALLOW, "", 60, NOW) == step
    again = swarm.begin(engine, proposal(run, 2), Verdict.ESCALATE, "so", 60, NOW)
    [request] = approvals.approvals(engine, run_id=run)
    assert (request.id, step.approval_id, again.approval_id) == (request.id,) * 3

    assert swarm.begin_approved(engine, request, proposal(run, 3), NOW) is None
    approved = approvals.decide(engine, request.id, approve=True, note="", now=NOW)
    assert approved.state is Standing.APPROVED
    assert swarm.begin_approved(engine, approved, proposal(run, 3, "other"), NOW) is None
    assert approvals.find_approval(engine, request.id).state is Standing.REJECTED

    swarm.begin(engine, proposal(run, 3, "b"), Verdict.ESCALATE, "so", 60, NOW)
    [second] = approvals.approvals(engine, run_id=run, states=(Standing.PENDING,))
    second = approvals.decide(engine, second.id, approve=True, note="", now=NOW)
    begun = swarm.begin_approved(engine, second, proposal(run, 4, "b"), NOW)
    assert begun is not None
    assert begun.state is State.INTENT
    assert swarm.begin_approved(engine, second, proposal(run, 5, "b"), NOW) is None

    memory = NewMemory("bug", "a fact", Source.DAEMON, run)
    for _ in range(2):
        swarm.finish(engine, begun.id, Outcome(State.DONE, "out", "note", memory), NOW + 1)
    assert [one.content for one in memories.query(engine, topic="bug")] == ["a fact"]
    assert [s.state for s in swarm.steps(engine, run)][-1] is State.DONE
    log = [one.ruling for one in approvals.audit_log(engine, run)]
    assert log == ["escalate", "escalate", "approved", "deny", "escalate", "approved", "used"]


def test_requests_lapse(engine: Engine) -> None:
    run = start_run(engine, mode="daemon", profile="test", now=NOW).id
    swarm.begin(engine, proposal(run, 1), Verdict.ESCALATE, "so", 60, NOW)
    [request] = approvals.approvals(engine, run_id=run)
    approved = approvals.decide(engine, request.id, approve=True, note="", now=NOW)
    late = NOW + 60 * SECOND
    assert swarm.begin_approved(engine, approved, proposal(run, 2), late) is None
    assert approvals.expire(engine, late) == 1
    assert approvals.find_approval(engine, request.id).state is Standing.EXPIRED


def test_a_consolidated_memory_takes_the_place_of_others(engine: Engine) -> None:
    ids = [
        memories.add(engine, NewMemory("test", text, Source.PERSON), NOW + number)
        for number, text in enumerate("ab")
    ]
    whole = NewMemory("test", "a and b", Source.CONSOLIDATED, None, tuple(ids))
    memories.add(engine, whole, NOW + 5)
    assert [one.content for one in memories.query(engine, topic="test")] == ["a and b"]
    assert memories.topics(engine)["test"] == 1
    assert memories.query(engine, topic="test", since=NOW + 6) == []
