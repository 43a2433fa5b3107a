"""What `uptier status` tells: the stack, its broker and queues, its workers, its ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import SQLAlchemyError

from config.broker import queue_lengths, shown
from config.errors import BrokerUnavailable, UptierError
from config.queues import make_app
from config.settings import Settings
from ledger import policies
from ledger.budgets import BudgetUse
from ledger.certificates import CertificateState
from ledger.clock import now
from ledger.database import ledger_place, open_ledger
from ledger.lanes import LaneView, fleet_view
from ledger.policies import PolicyState
from ledger.providers import ProviderState
from ledger.reports import Overview, overview
from ledger.workers import told_figures
from workers.flower_place import FlowerRecord
from workers.stack_state import (
    Phase,
    StackState,
    WorkerRecord,
    WorkerState,
    logs_directory,
    serves_broker,
)


class Condition(StrEnum):
    """How a stack fares."""

    DOWN = "down"
    STARTING = "starting"
    UP = "up"
    FAILED = "failed"
    """It runs, but a part of it was given up."""
    STOPPING = "stopping"
    CRASHED = "crashed"
    """Its owner is gone; the next start or `uptier down` cleans up."""
    EXTERNAL = "external"
    """The operator runs the broker, and no workers here."""


class WorkerStatus(BaseModel):
    """A worker process."""

    model_config = ConfigDict(frozen=True)

    name: str
    lane: str
    state: str
    pid: int | None
    uptime_s: float | None
    restarts: int
    placement: str
    message: str | None
    figures: dict[str, float] = {}
    """What it told last; empty while it is not heard of, or where it does not count."""


class Absence(BaseModel):
    """A lane of the profile that cannot be used here."""

    model_config = ConfigDict(frozen=True)

    lane: str
    reason: str


class StackStatus(BaseModel):
    """A stack as `uptier status --json` prints it; holds no password."""

    model_config = ConfigDict(frozen=True)

    condition: Condition
    profile: str
    failure: str | None
    owner_pid: int | None
    broker: str | None
    broker_reachable: bool
    broker_problem: str | None
    broker_restarts: int
    broker_message: str | None
    """Why the embedded broker was started again last."""
    lanes: tuple[LaneView, ...] = ()
    """Whether each lane serves, who serves it, and what waits on it."""
    lent_cards: tuple[int, ...] = ()
    queues: dict[str, int] | None
    """Messages waiting in each queue; ``None`` where the broker does not answer."""
    workers: tuple[WorkerStatus, ...]
    absent_lanes: tuple[Absence, ...]
    ledger: str
    budgets: tuple[BudgetUse, ...] = ()
    """Today's, over all runs."""
    providers: tuple[ProviderState, ...] = ()
    certificates: tuple[CertificateState, ...] = ()
    """The last one of every kind and lane; a lapsed one says why."""
    policy: PolicyState | None = None
    """The learnt policy that was adopted last."""
    decisions: dict[str, int] | None
    """Decisions by state; ``None`` where the ledger does not answer."""
    ledger_problem: str | None
    flower: str | None = None
    """Where Flower serves, if it does."""
    data_directory: Path
    log_directory: Path


def stack_status(settings: Settings) -> StackStatus:
    """Ask the stack of the data directory, or the external broker, how it fares."""
    settings, state = _stack_here(settings)
    condition = _condition(settings, state)
    alive = condition not in (Condition.DOWN, Condition.CRASHED)
    url = settings.broker_url or (state.broker_url if state is not None and alive else None)
    with ThreadPoolExecutor(1) as beside:  # where both are away, their silence is waited for once
        asked = beside.submit(_queue_lengths, url, settings) if url is not None else None
        held, problem = _overview(settings)
        queues, broker_problem = asked.result() if asked is not None else (None, None)
    told = _told(settings) if alive and problem is None else {}
    return StackStatus(
        condition=condition,
        profile=settings.profile,
        failure=state.failure if state is not None else None,
        owner_pid=state.owner.pid if state is not None and alive else None,
        broker=shown(url) if url is not None else None,
        broker_reachable=queues is not None,
        broker_problem=broker_problem,
        broker_restarts=state.broker_restarts if state is not None and alive else 0,
        broker_message=state.broker_message if state is not None and alive else None,
        lanes=_lanes(settings) if held is not None and held.decisions is not None else (),
        lent_cards=state.lent if state is not None and alive else (),
        queues=queues,
        workers=tuple(_worker(w, told) for w in state.workers) if state is not None else (),
        absent_lanes=tuple(Absence(lane=a.lane, reason=a.reason) for a in settings.absent_lanes),
        ledger=ledger_place(settings),
        decisions=held.decisions if held is not None else None,
        budgets=tuple(held.budgets) if held is not None else (),
        providers=tuple(held.providers) if held is not None else (),
        certificates=tuple(held.certificates) if held is not None else (),
        # Without decisions there is no policy, and perhaps no ledger: looking must not make one.
        policy=_policy(settings) if held is not None and held.decisions else None,
        ledger_problem=problem,
        flower=flower.url if (flower := FlowerRecord.read(settings)) is not None else None,
        data_directory=settings.data_dir,
        log_directory=logs_directory(settings),
    )


def _stack_here(settings: Settings) -> tuple[Settings, StackState | None]:
    """The stack of the data directory, and the settings as it goes by them."""
    state = StackState.read(settings.stack_dir)
    if state is not None and not serves_broker(state, settings):
        state = None  # commands with these settings have nothing to do with it
    if state is not None and state.profile != settings.profile:
        settings = settings.model_copy(update={"profile": state.profile})
    return settings, state


def _condition(settings: Settings, state: StackState | None) -> Condition:
    if state is None:
        return Condition.DOWN if settings.broker_url is None else Condition.EXTERNAL
    if not state.owner.alive():
        return Condition.CRASHED
    given_up = any(worker.state is WorkerState.FAILED for worker in state.workers)
    if state.failure is not None or given_up:
        return Condition.FAILED
    phases = {
        Phase.STARTING: Condition.STARTING,
        Phase.READY: Condition.UP,
        Phase.STOPPING: Condition.STOPPING,
    }
    return phases[state.phase]


def _worker(record: WorkerRecord, told: Mapping[int, dict[str, float]]) -> WorkerStatus:
    running = record.process is not None and record.process.alive()
    process = record.process if running else None
    # A death is noted at the watch's next look.
    died = not running and record.state in (WorkerState.STARTING, WorkerState.READY)
    return WorkerStatus(
        name=record.name,
        lane=record.lane,
        state="dead" if died else record.state,
        pid=process.pid if process is not None else None,
        uptime_s=round(time.time() - process.created, 1) if process is not None else None,
        restarts=record.restarts,
        placement=record.placement,
        message=record.message,
        figures=told.get(process.pid, {}) if process is not None else {},
    )


def _told(settings: Settings) -> dict[int, dict[str, float]]:
    try:
        return told_figures(settings)
    except (UptierError, SQLAlchemyError):
        return {}  # the ledger answered a moment ago; the next look will tell


def _lanes(settings: Settings) -> tuple[LaneView, ...]:
    embedded = settings.ledger_url.startswith("sqlite")
    if embedded and not Path(ledger_place(settings)).exists():
        return ()
    try:
        engine = open_ledger(settings)
        try:
            return fleet_view(engine, list(settings.catalog.lanes), now()).lanes
        finally:
            engine.dispose()
    except (UptierError, SQLAlchemyError):
        return ()  # the same


def _policy(settings: Settings) -> PolicyState | None:
    try:
        return policies.state(settings)
    except (UptierError, SQLAlchemyError):
        return None  # the same


def _queue_lengths(url: str, settings: Settings) -> tuple[dict[str, int] | None, str | None]:
    try:
        return queue_lengths(make_app(settings, url)), None
    except BrokerUnavailable as error:
        return None, str(error)


def _overview(settings: Settings) -> tuple[Overview | None, str | None]:
    embedded = settings.ledger_url.startswith("sqlite")
    if embedded and not Path(ledger_place(settings)).exists():
        return Overview(), None  # looking must not make one
    try:
        return overview(settings), None
    except (UptierError, SQLAlchemyError) as error:
        return None, str(error).splitlines()[0]
