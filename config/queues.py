"""The Celery application: queues, and the settings that make a lost worker harmless."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from amqp.exceptions import MessageNacked
from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from config.broker import is_amqp, tls_options
from config.settings import Settings

QUALITY = "quality"
INTAKE = "intake"
INTAKE_TASK = "uptier.intake"
FETCH = "uptier.fetch"
"""Tasks for programs that have the broker and nothing else of Uptier; see docs/celery.md."""
REPLIES = "reply."
"""How queues begin that may be replied to: no reply ever lands in a queue of work."""
MOST_NAME_CHARS = 200

VISIBILITY_TIMEOUT_S = 900
"""How long the broker waits for an acknowledgement; leases in the ledger are far shorter."""
CONFIRM_TIMEOUT_S = 30
"""How long RabbitMQ may take to say that it has a message; the outbox keeps what it did not."""

AGAIN: dict[str, Any] = {
    "max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0
}  # fmt: skip
"""A pooled connection may have been closed by the other side: tried again at once, on a new one."""


def make_app(settings: Settings, broker_url: str) -> Celery:
    """A Celery application on this broker with a queue a lane, ``quality`` and ``intake``."""
    app = Celery("uptier", broker=broker_url, backend=None, set_as_current=False)

    def named(name: str) -> str:
        return name_on_broker(name, broker_url, settings.key_prefix)

    exchange = Exchange(named("tasks"), type="direct")
    app.conf.update(
        task_queues=[
            _queue(name, exchange, broker_url, settings.key_prefix)
            for name in (*settings.catalog.lanes, QUALITY, INTAKE)
        ],
        task_default_queue=named(QUALITY),
        task_default_exchange=exchange.name,
        task_default_routing_key=QUALITY,
        control_exchange=named("control"),
        event_exchange=named("events"),
        event_queue_prefix=named("events"),
        settled_exchange=named("settled"),
        pieces_exchange=named("pieces"),
        key_prefix=settings.key_prefix,
        broker_use_ssl=tls_options(broker_url, settings.broker_ca_file),
        **_reliability(),
        worker_send_task_events=settings.task_events,
        # It would double what a message costs its sender; that of its receiver says the same.
        task_send_sent_event=False,
        **_transport(broker_url, settings.key_prefix),
    )
    return app


def _queue(name: str, exchange: Exchange, broker_url: str, key_prefix: str) -> Queue:
    arguments = {"x-queue-type": "quorum"} if is_amqp(broker_url) else None
    bound = name_on_broker(name, broker_url, key_prefix)
    return Queue(bound, exchange, routing_key=name, queue_arguments=arguments, alias=name)


def _known(app: Celery, name: str) -> str:
    """A lane that this machine's catalog lacks, for want of a key, may be served by another's."""
    try:
        app.amqp.queues[name]
    except KeyError:
        exchange = Exchange(app.conf.task_default_exchange, type="direct")
        broker_url, prefix = app.conf["broker_url"], app.conf["key_prefix"]
        app.amqp.queues.add(_queue(name, exchange, broker_url, prefix))
    return name


def name_on_broker(name: str, broker_url: str, key_prefix: str) -> str:
    """What a queue or an exchange is called there.

    AMQP has one namespace a virtual host, so names bear the prefix themselves; on Redis and
    Valkey every key gets it from the transport.
    """
    return key_prefix + name if is_amqp(broker_url) else name


def settled_exchange(app: Celery) -> Exchange:
    """Best-effort notices of settled decisions; a waiting producer hears those of its run."""
    name: str = app.conf["settled_exchange"]
    return Exchange(name, type="fanout", durable=False, delivery_mode="transient")


def pieces_exchange(app: Celery) -> Exchange:
    """Best-effort pieces of texts that are being written; who listens hears those of its run.

    On Redis a fanout is published under its key and kept nowhere. RabbitMQ would send a fanout to
    everybody, whatever the key.
    """
    name: str = app.conf["pieces_exchange"]
    kind = "direct" if is_amqp(app.conf["broker_url"]) else "fanout"
    return Exchange(name, type=kind, durable=False, delivery_mode="transient")


def _reliability() -> dict[str, Any]:
    return {
        "task_create_missing_queues": False,
        # The ledger is the truth; results in the broker would only be a second one.
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        # True would redeliver a poison message without a bound; the sweeper counts deliveries.
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": 5,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "control_queue_expires": 60,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "accept_content": ["json"],
        "task_serializer": "json",
        "event_serializer": "json",
        "enable_utc": True,
    }


def _transport(broker_url: str, key_prefix: str) -> dict[str, Any]:
    if is_amqp(broker_url):
        return {
            "broker_transport_options": {"confirm_publish": True},
            # An exclusive one would turn a worker away that comes back before the server has
            # noticed that its old connection is dead.
            "control_queue_exclusive": False,
            "control_queue_durable": True,
        }
    options = {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A publisher on a half-open connection waits so long, and the steward with it.
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "socket_keepalive_options": _keepalive(),
        "health_check_interval": 10,
        "global_keyprefix": key_prefix,
    }
    return {"broker_transport_options": options, "visibility_timeout": VISIBILITY_TIMEOUT_S}


def _keepalive() -> dict[int, int]:
    """Options of a socket by which its connection is given up after 25 s of silence.

    Who only listens, as a subscriber does, would otherwise believe for two hours in a server that
    lost its power. Where the system has other names for them, its own patience counts.
    """
    wanted = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): n for name, n in wanted.items() if hasattr(socket, name)}


class Announced(Protocol):
    """A message of the outbox, as far as sending it goes."""

    @property
    def task(self) -> str:
        """The task's name."""
        ...

    @property
    def queue(self) -> str:
        """Where it goes."""
        ...

    @property
    def arguments(self) -> tuple[object, ...]:
        """What the task is called with; ids, never prompts."""
        ...

    @property
    def described(self) -> str:
        """What watchers see in the place of the arguments."""
        ...


def send(app: Celery, message: Announced) -> None:
    """Publish a task.

    Raises:
        OperationalError: the broker is away, or did not take the message.
    """
    queue = _known(app, message.queue)
    with _publishing(app) as producer:
        app.send_task(
            message.task, args=message.arguments, queue=queue, producer=producer,
            argsrepr=message.described, kwargsrepr="",
            retry=True, retry_policy=AGAIN, confirm_timeout=CONFIRM_TIMEOUT_S,
        )  # fmt: skip


def notify(app: Celery, settled: Iterable[tuple[str, str]]) -> None:
    """Tell waiting producers which decisions settled, by run; whoever is not there misses it.

    Raises:
        OperationalError: the broker is away, or did not take a message.
    """
    by_run: dict[str, list[str]] = defaultdict(list)
    for run_id, decision_id in settled:
        by_run[run_id].append(decision_id)
    exchange = settled_exchange(app)
    with _publishing(app) as producer:
        for run_id, ids in by_run.items():
            producer.publish(
                {"run": run_id, "ids": ids},
                exchange=exchange,
                routing_key=run_id,
                declare=[exchange],
                serializer="json",
                retry=True,
                retry_policy=AGAIN,
                confirm_timeout=CONFIRM_TIMEOUT_S,
            )


def tell(app: Celery, run_id: str, pieces: Sequence[Mapping[str, Any]]) -> None:
    """Tell producers of a run what has been written of its texts; who is not there misses it.

    Raises:
        OperationalError: the broker is away, or did not take the message.
    """
    exchange = pieces_exchange(app)
    with _publishing(app) as producer:
        producer.publish(
            {"run": run_id, "pieces": list(pieces)},
            exchange=exchange,
            routing_key=run_id,
            declare=[exchange],
            serializer="json",
            retry=True,
            retry_policy=AGAIN,
            confirm_timeout=CONFIRM_TIMEOUT_S,
        )


def wants_reply(name: object) -> bool:
    """Whether a message names a queue for replies; Celery itself puts an id there."""
    return isinstance(name, str) and name.startswith(REPLIES) and len(name) <= MOST_NAME_CHARS


def reply(app: Celery, queue: str, correlation_id: str | None, said: dict[str, Any]) -> None:
    """Send an answer straight to the asker's own queue; if that is gone, so is the answer.

    Raises:
        OperationalError: the broker is away, or did not take the message.
    """
    with _publishing(app) as producer:
        producer.publish(
            said,
            exchange="",
            routing_key=queue,
            correlation_id=correlation_id,
            serializer="json",
            delivery_mode="transient",
            retry=True,
            retry_policy=AGAIN,
            confirm_timeout=CONFIRM_TIMEOUT_S,
        )


@contextmanager
def _publishing(app: Celery) -> Iterator[Any]:
    with app.producer_pool.acquire(block=True) as producer:
        connection: Any = producer.connection
        faults = (*connection.connection_errors, *connection.channel_errors, MessageNacked)
        try:
            yield producer
        except faults as error:
            raise OperationalError(str(error) or type(error).__name__) from error
