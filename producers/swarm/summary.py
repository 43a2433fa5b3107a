"""How a daemon's run stands: its iterations, its actions, what waits, and what it cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Engine

from config.catalog import Catalog
from config.settings import Settings
from ledger import approvals, memories, swarm
from ledger.approvals import Standing
from ledger.reports import Report, report
from ledger.runs import RunInfo
from ledger.swarm import Step
from producers.swarm.questions import Order
from producers.swarm.state import Known, headline

RESTING = (Standing.PENDING, Standing.APPROVED)


class StepLine(BaseModel):
    """An iteration in short; its time is in microseconds since 1970."""

    iteration: int
    action: str
    arguments: dict[str, Any]
    complexity: str
    ruling: str
    state: str
    note: str
    approval: str | None
    created_at: int


class Waiting(BaseModel):
    """An action that a person has to see to, or has approved and that was not done yet."""

    id: str
    action: str
    arguments: dict[str, Any]
    reason: str
    state: str


class DaemonStatus(BaseModel):
    """A daemon's run. ``ending`` says why it stopped, where this process has run it."""

    run: str
    objective: str
    workdir: str
    iteration: int
    max_iterations: int
    ending: str | None
    actions: dict[str, int]
    classes: dict[str, int]
    states: dict[str, int]
    steps: list[StepLine]
    approvals: list[Waiting]
    memories: dict[str, int]
    kill_file: str
    killed: bool
    """Whether the kill file is there."""
    report: Report


def daemon_status(
    engine: Engine,
    settings: Settings,
    catalog: Catalog,
    run: RunInfo,
    kill_file: Path,
    ending: str | None = None,
) -> DaemonStatus:
    """How a run stands. ``catalog`` is the run's whole profile, absent lanes included."""
    order, topics = Order.of(run.config), memories.topics(engine)
    known = Known(swarm.steps(engine, run.id), topics)
    counts = known.counts()
    return DaemonStatus(
        run=run.id, objective=order.objective, workdir=order.workdir,
        iteration=known.iteration - 1, max_iterations=order.max_iterations, ending=ending,
        actions=counts["actions"], classes=counts["classes"], states=counts["states"],
        steps=[_line(step) for step in known.steps],
        approvals=[
            Waiting(id=one.id, action=one.action, arguments=one.arguments, reason=one.reason,
                    state=one.state.value)
            for one in approvals.approvals(engine, run_id=run.id, states=RESTING)
        ],
        memories=topics, kill_file=str(kill_file), killed=kill_file.exists(),
        report=report(engine, settings, catalog, run),
    )  # fmt: skip


def one_line(step: Step) -> str:
    """A step as it is told while the daemon works."""
    return f"{step.iteration}. [{step.complexity}, {step.state.value}] {headline(step)}"


def details(step: Step) -> str:
    """All that is known of a step, for who wants to see it."""
    given = json.dumps(step.arguments, ensure_ascii=False)
    return f"   {step.action} {given}\n   " + (step.output or step.note).replace("\n", "\n   ")


def _line(step: Step) -> StepLine:
    return StepLine(
        iteration=step.iteration, action=step.action, arguments=step.arguments,
        complexity=step.complexity, ruling=step.ruling, state=step.state.value, note=step.note,
        approval=step.approval_id, created_at=step.created_at,
    )  # fmt: skip
