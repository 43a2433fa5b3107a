"""The Celery application: queues, and the settings that make a lost worker harmless."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import urlsplit

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from config.errors import BrokerUnavailable

QUALITY = "quality"
INTAKE = "intake"
SETTLED = Exchange("uptier.settled", type="fanout", durable=False, delivery_mode="transient")
"""Best-effort notices of settled decisions; a waiting producer hears those of its run."""

VISIBILITY_TIMEOUT_S = 900
"""How long the broker waits for an acknowledgement; leases in the ledger are far shorter."""


def make_app(broker_url: str, lanes: Iterable[str], key_prefix: str) -> Celery:
    """A Celery application on this broker with a queue a lane, ``quality`` and ``intake``."""
    app = Celery("uptier", broker=broker_url, backend=None, set_as_current=False)
    quorum = urlsplit(broker_url).scheme.startswith("amqp")
    arguments = {"x-queue-type": "quorum"} if quorum else None
    exchange = Exchange("uptier", type="direct")
    app.conf.update(
        task_queues=[
            Queue(name, exchange, routing_key=name, queue_arguments=arguments)
            for name in (*lanes, QUALITY, INTAKE)
        ],
        task_default_queue=QUALITY,
        task_default_exchange="uptier",
        task_default_routing_key=QUALITY,
        **_reliability(),
        **_transport(quorum, key_prefix),
    )
    return app


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
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "control_queue_expires": 60,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "accept_content": ["json"],
        "task_serializer": "json",
        "event_serializer": "json",
        "enable_utc": True,
    }


def _transport(quorum: bool, key_prefix: str) -> dict[str, Any]:
    if quorum:
        return {"broker_transport_options": {"confirm_publish": True}}
    options = {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "global_keyprefix": key_prefix,
    }
    return {"broker_transport_options": options, "visibility_timeout": VISIBILITY_TIMEOUT_S}


def check_broker(app: Celery, timeout_s: float = 5) -> None:
    """Connect once.

    Raises:
        BrokerUnavailable: it does not answer, or refuses the password.
    """
    connection: Any = app.connection_for_write(connect_timeout=timeout_s)
    faults = (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=timeout_s)
        # The Redis transport connects only when it is used.
        app.amqp.queues[QUALITY].bind(connection.default_channel).declare()
    except faults as error:
        raise _unavailable(connection.as_uri(), error) from None
    finally:
        connection.release()


def _unavailable(uri: str, error: BaseException) -> BrokerUnavailable:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    refusals = ("NOAUTH", "WRONGPASS", "ACCESS_REFUSED", "invalid username", "invalid password")
    if any(word in text for word in refusals) or "AuthenticationError" in type(error).__name__:
        return BrokerUnavailable(f"broker {uri} refuses the password: correct UPTIER_BROKER_URL")
    return BrokerUnavailable(
        f"broker {uri} does not answer ({text}): start it, or correct UPTIER_BROKER_URL"
    )


def shown(broker_url: str) -> str:
    """A broker's URL without its password."""
    parts = urlsplit(broker_url)
    host = parts.hostname or ""
    place = f"{host}:{parts.port}" if parts.port is not None else host
    user = f"{parts.username}@" if parts.username else ""
    return parts._replace(netloc=user + place).geturl()


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


def send(app: Celery, message: Announced) -> None:
    """Publish a task."""
    app.send_task(message.task, args=message.arguments, queue=message.queue, retry=False)


def notify(app: Celery, settled: Iterable[tuple[str, str]]) -> None:
    """Tell waiting producers which decisions settled, by run; whoever is not there misses it."""
    by_run: dict[str, list[str]] = defaultdict(list)
    for run_id, decision_id in settled:
        by_run[run_id].append(decision_id)
    with app.producer_pool.acquire(block=True) as producer:
        for run_id, ids in by_run.items():
            producer.publish(
                {"run": run_id, "ids": ids},
                exchange=SETTLED,
                routing_key=run_id,
                declare=[SETTLED],
                serializer="json",
                retry=False,
            )
