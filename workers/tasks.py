"""The Celery tasks: ``uptier.decide`` and ``uptier.check``, whose messages carry ids and never
prompts; ``uptier.intake`` and ``uptier.fetch`` for programs without Uptier."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from kombu.exceptions import OperationalError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from config.catalog import IN_PROCESS
from config.errors import InputError, UptierError
from config.queues import FETCH, INTAKE_TASK, reply, tell, wants_reply
from config.settings import Settings
from ledger.clock import SECOND, now
from ledger.database import open_ledger
from ledger.outbox import CHECK, DECIDE, MAX_IDS
from ledger.patience import passes
from routing.fingerprint import service_of
from workers.answering import Answerer
from workers.backends.factory import open_backend
from workers.checking import Checker
from workers.intake import Intake
from workers.label_paths import SCORING
from workers.models import model_fingerprint
from workers.publishing import Publisher
from workers.shown import ShownRequest
from workers.telling import Teller

log = logging.getLogger(__name__)

MAX_ID_CHARS = 64
REREAD_US = 60 * SECOND
"""How long it stands what serves another lane: its weights may be prepared anew meanwhile."""


class Office:
    """What the tasks of one process work with. A forked child opens its own."""

    def __init__(self, settings: Settings, app: Celery, lane: str) -> None:
        self._settings = settings
        self._app = app
        self._lane = lane
        self._pid = 0
        self._engine: Engine | None = None
        self._answerer: Answerer | None = None
        self._checker: Checker | None = None
        self._fingerprints: dict[str, tuple[str | None, int]] = {}
        self._intake: Intake | None = None

    def engine(self) -> Engine:
        """This process's own connections to the ledger."""
        if self._engine is None or self._pid != os.getpid():
            if self._engine is not None:
                # The parent's connections are not ours to close.
                self._engine.dispose(close=False)
            self._engine = open_ledger(self._settings)
            self._checker = self._intake = None
            self._pid = os.getpid()
        return self._engine

    def publisher(self, engine: Engine | None = None) -> Publisher:
        """Publishes what a transaction left."""
        return Publisher(self._app, engine or self.engine())

    def answerer(self) -> Answerer:
        """The lane's answerer, its model loaded."""
        if self._answerer is None:
            lane = self._lane
            model = self._settings.catalog.lanes[lane].model
            self._answerer = Answerer(
                self._settings,
                lane,
                engine=self.engine(),
                backend=open_backend(self._settings, lane),
                fingerprint=lane_fingerprint(self._settings, model),
                publisher=self.publisher(),
                clock=now,
                fingerprint_of=self._fingerprint_of,
                teller=Teller(partial(tell, self._app)),
            )
        return self._answerer

    def _fingerprint_of(self, lane: str) -> str | None:
        """What serves a lane, as of the last minute; ``None`` if its weights are on another
        machine, say."""
        found, until = self._fingerprints.get(lane, (None, 0))
        if now() < until:
            return found
        try:
            found = lane_fingerprint(self._settings, self._settings.catalog.lanes[lane].model)
        except (KeyError, UptierError):
            found = None
        self._fingerprints[lane] = (found, now() + REREAD_US)
        return found

    def checker(self) -> Checker:
        """The quality check."""
        engine = self.engine()
        if self._checker is None:
            self._checker = Checker(
                self._settings, engine=engine, publisher=self.publisher(), clock=now,
                fingerprint_of=self._fingerprint_of,
            )  # fmt: skip
        return self._checker

    def intake(self) -> Intake:
        """Who takes raw decisions."""
        engine = self.engine()
        if self._intake is None:
            self._intake = Intake(
                self._settings, engine=engine, publisher=self.publisher(), clock=now
            )
        return self._intake

    def close(self) -> None:
        """Give back what was opened."""
        if self._answerer is not None:
            self._answerer.close()
        if self._engine is not None:
            self._engine.dispose()


def lane_fingerprint(settings: Settings, model_name: str) -> str:
    """What an answer depends on beside its question: the weights, or a service's model.

    And how labels are scored: what was cached, calibrated or certified by another way of scoring
    is not gone by.
    """
    model = settings.catalog.models[model_name]
    if model.weights is None or model.backend not in IN_PROCESS:
        served = f"{model.backend.value}:{model.remote_name or model_name}"
        service = service_of(settings.catalog, model)
        if service:
            served += "@" + hashlib.sha256(json.dumps(service).encode()).hexdigest()[:8]
    else:
        served = model_fingerprint(settings, model_name)
    return f"{served}~{SCORING}"


def register(app: Celery, office: Office) -> None:
    """Define the tasks on an application."""

    @app.task(name=DECIDE, Request=ShownRequest)
    def decide(lane: str, ids: list[str]) -> None:
        if _is_sound(ids):
            office.answerer().answer(lane, ids)

    @app.task(name=CHECK, Request=ShownRequest)
    def check(ids: list[str]) -> None:
        if _is_sound(ids):
            office.checker().check(ids)

    @app.task(name=INTAKE_TASK, bind=True, Request=ShownRequest)
    def intake(task: Any, *args: Any, **kwargs: Any) -> None:
        serve_raw(app, task, office.intake().take, args, kwargs)

    @app.task(name=FETCH, bind=True, Request=ShownRequest)
    def fetch(task: Any, *args: Any, **kwargs: Any) -> None:
        serve_raw(app, task, office.intake().fetch, args, kwargs)


def serve_raw(
    app: Celery,
    task: Any,
    work: Callable[..., dict[str, Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Do what a raw message asks, and reply where a reply is wanted.

    What is malformed is told in one line and dropped. Only a ledger that is away sends a message
    back to its queue: nothing was written, and it keeps nowhere else.
    """
    try:
        said = work(**_bound(work, args, kwargs))
    except InputError as fault:
        log.warning("%s dropped: %s", task.name, fault)
        said = {"error": str(fault)}
    except DBAPIError as error:
        if not passes(error):
            raise
        log.warning("%s: the ledger is away, the message goes back: %s", task.name, error.orig)
        raise Reject(str(error.orig), requeue=True) from None
    if wants_reply(task.request.reply_to):
        try:
            reply(app, task.request.reply_to, task.request.correlation_id, said)
        except (OperationalError, OSError) as error:
            log.warning("%s: its reply is lost, the broker is away: %s", task.name, error)


def _bound(
    work: Callable[..., dict[str, Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    try:
        return inspect.signature(work).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise InputError(f"arguments: {error}") from None


def _is_sound(ids: object) -> bool:
    """Whether a message is one of ours: whoever can write to the broker can send any other."""
    sound = (
        isinstance(ids, list)
        and len(ids) <= MAX_IDS
        and all(isinstance(one, str) and len(one) <= MAX_ID_CHARS for one in ids)
    )
    if not sound:
        log.error("a message that is not a list of at most %d ids was dropped", MAX_IDS)
    return sound
