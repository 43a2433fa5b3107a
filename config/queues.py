"""The Celery application: queues, and the settings that make a lost worker harmless."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from config.errors import BrokerUnavailable

QUALITY = "quality"
INTAKE = "intake"
SETTLED = Exchange("uptier.settled", type="fanout", durable=False, delivery_mode="transient")
"""Best-effort notices of settled decisions; every waiting producer hears them all."""

VISIBILITY_TIMEOUT_S = 900
"""How long the broker waits for an acknowledgement; leases in the ledger are far shorter."""


def make_app(broker_url: str, lanes: Iterable[str], key_prefix: str) -> Celery:
    """A Celery application on this broker with a queue a lane, ``quality`` and ``intake``."""
    app = Celery("uptier", broker=broker_url, backend=None, set_as_current=False)
    quorum = urlsplit(broker_url).scheme.startswith("amqp")
    arguments = {"x-queue-type": "quorum"} if quorum else None
    app.conf.update(
        task_queues=[
            Queue(name, Exchange("uptier", type="direct"), routing_key=name,
                  queue_arguments=arguments)
            for name in (*lanes, QUALITY, INTAKE)
        ],  # fmt: skip
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
    connection = app.connection_for_write(connect_timeout=timeout_s)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=timeout_s)
        # The Redis transport connects only when it is used.
        connection.default_channel.queue_declare(QUALITY, passive=False)
    except (OperationalError, OSError, *connection.connection_errors) as error:
        raise _unavailable(connection.as_uri(), error) from None
    except connection.channel_errors as error:
        raise _unavailable(connection.as_uri(), error) from None
    finally:
        connection.release()


def _unavailable(uri: str, error: BaseException) -> BrokerUnavailable:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    refused = any(word in text for word in ("NOAUTH", "WRONGPASS", "ACCESS_REFUSED", "invalid username"))
    if refused or "AuthenticationError" in type(error).__name__:
        return BrokerUnavailable(f"broker {uri} refuses the password: correct UPTIER_BROKER_URL")
    return BrokerUnavailable(
        f"broker {uri} does not answer ({text}): start it, or correct UPTIER_BROKER_URL"
    )
