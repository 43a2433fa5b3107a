"""A worker process: the Celery application, its tasks, and the parts they work with."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import billiard.pool
import celery.apps.worker
from celery import Celery, signals
from celery.worker import state
from sqlalchemy import Engine

from config import logs
from config.broker import check_broker
from config.catalog import IN_PROCESS
from config.errors import ConfigurationError
from config.queues import INTAKE, QUALITY, make_app
from config.settings import Settings
from ledger import tracing
from ledger.clock import now
from ledger.database import open_ledger
from ledger.outbox import new_id
from ledger.workers import Life, announce
from workers.children import exit_with_parent
from workers.consumer import LaneConsumer
from workers.naming import node_name
from workers.steward import Steward, StewardStep
from workers.tasks import Office, register
from workers.vram import card_figures

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
TOKEN = "UPTIER_WORKER_TOKEN"
"""Set by a stack for its workers; tells the instances of one worker apart."""


def run_worker(settings: Settings, lane: str) -> int:
    """Serve one lane, or ``quality``, until told to stop; returns the exit status.

    Raises:
        ConfigurationError: no such lane, its weights are missing, or there is no broker.
    """
    if settings.broker_url is None:
        raise ConfigurationError(
            "no broker: set UPTIER_BROKER_URL, or let `uptier up` start one with its workers"
        )
    if lane != QUALITY and lane not in settings.catalog.lanes:
        raise ConfigurationError(
            f"lane {lane!r} is not in profile {settings.profile!r}: choose one of "
            f"{', '.join((*settings.catalog.lanes, QUALITY))}"
        )
    logs.set_up(settings)
    signals.setup_logging.connect(_leave_logging_alone, weak=False)
    if settings.log_format == "json":
        # What Celery prints by itself when it is told to stop, past all logging.
        setattr(celery.apps.worker, "safe_say", _say_nothing)  # noqa: B010 - no stub has it
    tracing.use(settings)
    signals.worker_process_shutdown.connect(_end_traces, weak=False)
    exit_with_parent()
    app = make_app(settings, settings.broker_url)
    if TOKEN not in os.environ:
        # A stack has seen to its broker, and one that is away by now is waited for.
        check_broker(app)
    office = Office(settings, app, lane)
    register(app, office)
    _live(app, settings, lane, office)
    worker = app.Worker(**_options(settings, lane))
    worker.start()
    office.close()
    tracing.end()
    return int(worker.exitcode or 0)


def _say_nothing(*_: Any, **__: Any) -> None:
    """Stands in for a print."""


def _leave_logging_alone(**_: Any) -> None:
    """Connected, it keeps Celery from putting up handlers of its own."""


def _end_traces(**_: Any) -> None:
    tracing.end()


def _options(settings: Settings, lane: str) -> dict[str, Any]:
    quality = lane == QUALITY
    name = os.environ.get("UPTIER_WORKER_NAME", lane)
    return {
        "hostname": f"{name if quality else node_name(name, lane)}@{socket.gethostname()}",
        "queues": [lane, INTAKE] if quality else [lane],
        "consumer_cls": LaneConsumer,
        "pool": "prefork" if quality else "threads",
        "concurrency": 1 if quality else settings.catalog.lanes[lane].slots,
        "loglevel": settings.log_level,
        "without_gossip": True,
        "without_mingle": True,
        "quiet": True,
    }


def _live(app: Celery, settings: Settings, lane: str, office: Office) -> None:
    """Announce the worker while it lives; a quality worker is a steward beside."""
    token = os.environ.get(TOKEN) or new_id()
    engine = open_ledger(settings)
    life = Life(token, os.environ.get("UPTIER_WORKER_NAME", lane), lane)
    _announce(engine, life, office, may_offload=_may_offload(settings, lane))
    if lane == QUALITY:
        # Its pool waits so many tenths of a second for a child that is gone when it is told to
        # stop; 30 s by default, in which nothing is checked.
        billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 20
        StewardStep.steward = Steward(
            settings, engine=engine, publisher=office.publisher(engine), holder=token, clock=now
        )
        app.steps["worker"].add(StewardStep)
    else:
        # Loaded before the first message is taken; a model that will not load ends the worker.
        office.answerer()


def _messages() -> dict[str, int]:
    """Messages that this process was handed since it started, and those that it is at now."""
    begun, held = sum(state.total_count.values()), len(state.active_requests)
    return {"begun": begun, "held": held, "finished": max(0, begun - held)}


def _may_offload(settings: Settings, lane: str) -> bool:
    """Whether the lane's model is computed in this process, on a card if there is one."""
    model = None if lane == QUALITY else settings.catalog.lane_model(lane)
    return model is not None and model.backend in IN_PROCESS and model.gpu_layers != 0


def _announce(engine: Engine, life: Life, office: Office, *, may_offload: bool) -> None:
    """Tell the ledger when the worker is ready, every few seconds, and when it stops."""

    def _beat() -> None:
        figures: dict[str, float] = {**_messages()}
        if life.lane != QUALITY:
            figures |= office.answerer().figures() | card_figures(lone=may_offload)
        announce(engine, life, "ready", figures)

    @signals.worker_ready.connect(weak=False)
    def _ready(sender: Any, **_: Any) -> None:
        # First of all: where the ledger is away just now, a later beat tells it.
        sender.timer.call_repeatedly(HEARTBEAT_S, _beat)
        _beat()

    @signals.worker_shutting_down.connect(weak=False)
    def _stopping(**_: Any) -> None:
        announce(engine, life, "stopping")
