"""Flower on the broker in use: its options, its login, what it keeps, how it ends."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery
from flower.app import Flower
from flower.options import options
from flower.urls import settings as handlers_settings
from kombu.exceptions import OperationalError
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.netutil import bind_sockets
from tornado.web import ErrorHandler

from config.broker import check_broker
from config.errors import ConfigurationError, StackError
from config.flower import flower_login
from config.hosts import host_of, is_loopback
from config.queues import make_app
from config.settings import Settings
from workers.children import ProcessRecord, exit_with_parent
from workers.flower_place import FlowerRecord, only_one
from workers.stack_state import prepare_directories
from workers.watched import as_it_runs, broker_in_use, stack_in_use

log = logging.getLogger(__name__)

MOST_TASKS = 10_000
"""That it remembers; its own default of 100,000 takes some 300 MB."""
SAVE_MS = 60_000
LOOK_MS = 2_000
FORGET_WORKERS_S = 24 * 3600
COLUMNS = "name,args,state,received,runtime,worker"
STOPS = (signal.SIGINT, signal.SIGTERM)


class Watch(Flower):  # type: ignore[misc]
    """Flower that, where it asks for no login, answers no page that leads its own name here."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """The handler of a request, or a refusal."""
        host = host_of("//" + request.headers.get("Host", ""))
        if not self.options.basic_auth and not is_loopback(host):
            return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})
        return super().find_handler(request, **kwargs)


def run_flower(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve Flower until a signal ends it; ``ready`` is told its URL.

    Raises:
        ConfigurationError: there is no broker to watch, the port is taken, the login is missing,
            or Flower runs already.
        BrokerUnavailable: the broker does not answer.
        StackError: the stack that it watched has ended.
    """
    login = flower_login(settings)
    url = broker_in_use(settings)
    app = make_app(as_it_runs(settings), url)
    prepare_directories(settings)
    exit_with_parent()
    check_broker(app)
    with only_one(settings) as directory:
        _configure(settings, login, directory)
        _serve(settings, app, ready)


def _configure(settings: Settings, login: str | None, directory: Path) -> None:
    """Flower reads its options from a global of its own."""
    options.address = settings.flower_address
    options.port = settings.flower_port
    options.basic_auth = [login] if login is not None else []
    # Without a login anybody on this machine may look, and nobody may stop a worker.
    options.read_only = login is None
    options.persistent = True
    options.db = str(directory / "state")
    options.state_save_interval = SAVE_MS
    options.max_tasks = MOST_TASKS
    options.purge_offline_workers = FORGET_WORKERS_S
    options.tasks_columns = COLUMNS


def _serve(settings: Settings, app: Celery, ready: Callable[[str], None]) -> None:
    loop = IOLoop.current()
    sockets = _bound(settings)
    flower = Watch(capp=app, options=options, io_loop=loop, **handlers_settings)
    server = HTTPServer(flower)
    server.add_sockets(sockets)
    address = f"http://{_in_url(settings.flower_address)}:{sockets[0].getsockname()[1]}"
    ended: list[str] = []

    def stop(*_: object) -> None:
        loop.add_callback_from_signal(flower.stop)

    for number in STOPS:
        signal.signal(number, stop)
    watch = PeriodicCallback(lambda: _end_with_stack(settings, app, flower, ended), LOOK_MS)
    watch.start()

    def serving() -> None:
        FlowerRecord(url=address, process=ProcessRecord.of(os.getpid())).write(settings)
        ready(address)

    loop.add_callback(serving)
    try:
        flower.start()
    finally:
        watch.stop()
        server.stop()
        _end_events(app)
    if ended:
        raise StackError(ended[0])


def _end_with_stack(settings: Settings, app: Celery, flower: Flower, ended: list[str]) -> None:
    """A stack that starts again has another broker, with another password."""
    if settings.broker_url is not None:
        return
    state = stack_in_use(settings)
    if state is None or state.broker_url != app.conf["broker_url"]:
        ended.append("the stack that Flower watched has ended: run `uptier up`, then this again")
        flower.stop()


def _end_events(app: Celery) -> None:
    """Let workers stop telling of each task at once; another Flower will ask them again."""
    try:
        app.control.disable_events()
    except (OperationalError, OSError) as error:
        log.info("workers were not told that nobody watches: %s", error)


def _bound(settings: Settings) -> list[Any]:
    address, port = settings.flower_address, settings.flower_port
    try:
        return bind_sockets(port, address=address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} of Flower is taken: free it, or set UPTIER_FLOWER_PORT"
            ) from None
        raise ConfigurationError(
            f"Flower cannot serve on {address!r} port {port} ({error.strerror}): correct "
            "UPTIER_FLOWER_ADDRESS"
        ) from None


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
