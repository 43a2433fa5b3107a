"""A worker process: the Celery application, its tasks, and the parts they work with."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import billiard.pool
from celery import Celery, signals
from sqlalchemy import Engine

from config.broker import check_broker
from config.errors import ConfigurationError
from config.queues import INTAKE, QUALITY, make_app
from config.settings import Settings
from ledger.clock import now
from ledger.database import open_ledger
from ledger.outbox import new_id
from ledger.workers import Life, announce
from workers.children import exit_with_parent
from workers.consumer import LaneConsumer
from workers.steward import Steward, StewardStep
from workers.tasks import Office, register

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
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
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
    return int(worker.exitcode or 0)


def _options(settings: Settings, lane: str) -> dict[str, Any]:
    quality = lane == QUALITY
    name = os.environ.get("UPTIER_WORKER_NAME", lane)
    return {
        "hostname": f"{name}@{socket.gethostname()}",
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
    _announce(engine, Life(token, os.environ.get("UPTIER_WORKER_NAME", lane), lane), office)
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


def _announce(engine: Engine, life: Life, office: Office) -> None:
    """Tell the ledger when the worker is ready, every few seconds, and when it stops."""

    def _beat() -> None:
        figures = {} if life.lane == QUALITY else office.answerer().figures()
        announce(engine, life, "ready", figures)

    @signals.worker_ready.connect(weak=False)
    def _ready(sender: Any, **_: Any) -> None:
        _beat()
        sender.timer.call_repeatedly(HEARTBEAT_S, _beat)

    @signals.worker_shutting_down.connect(weak=False)
    def _stopping(**_: Any) -> None:
        announce(engine, life, "stopping")
