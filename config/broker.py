"""The connection to a broker: its address, its certificate, and what is wrong when it fails."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu.exceptions import OperationalError

from config.errors import BrokerUnavailable
from config.secrets import redact

TIMEOUT_S = 5.0
NOT_FOUND = "(404)"
WITH_TLS = "rediss:// or amqps://"
TROUBLES = (
    (
        ("NOPERM", "ACCESS_REFUSED - access to", "No permissions to"),
        "keeps its user from what workers need ({text}): give it the rights",
    ),
    (
        ("NOAUTH", "WRONGPASS", "ACCESS_REFUSED", "AuthenticationError", "Authentication required",
         "invalid username", "invalid password", "without any password configured"),
        "refuses the user or the password: correct them in UPTIER_BROKER_URL (characters such as "
        "/ or @ are written %2F and %40), or the password in the file of "
        "UPTIER_BROKER_PASSWORD_FILE",
    ),
    (
        ("NOT_ALLOWED",),
        "has no such virtual host, or keeps this user out of it: create it, or correct "
        "UPTIER_BROKER_URL",
    ),
    (
        ("PRECONDITION_FAILED",),
        "has a queue of that name and another type ({text}): delete it, or set UPTIER_KEY_PREFIX "
        "to another prefix",
    ),
)  # fmt: skip
"""Words by which brokers refuse, with what they mean and the mend; the first that fits."""
OTHER_HOST = (62, 64)
"""OpenSSL's codes for a certificate that is good, but for another name or address."""


def is_amqp(broker_url: str) -> bool:
    """Whether the broker speaks AMQP; else it is Redis or Valkey."""
    return urlsplit(broker_url).scheme in ("amqp", "amqps")


def shown(broker_url: str) -> str:
    """A broker's URL without its password."""
    parts = urlsplit(broker_url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    place = f"{host}:{parts.port}" if parts.port is not None else host
    user = f"{parts.username}@" if parts.username else ""
    return redact(parts._replace(netloc=user + place).geturl())


def tls_options(broker_url: str, ca_file: Path | None) -> dict[str, Any] | None:
    """Celery's ``broker_use_ssl``: certificate and host name are always verified.

    ``ca_file`` is a PEM file of authorities; absent, those of the system count. ``None`` for a
    scheme without TLS.
    """
    parts = urlsplit(broker_url)
    authorities = str(ca_file) if ca_file is not None else None
    if parts.scheme == "amqps":
        return {
            "cert_reqs": ssl.CERT_REQUIRED,
            "ca_certs": authorities,
            "server_hostname": parts.hostname,
        }
    if parts.scheme == "rediss":
        return {
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_ca_certs": authorities,
            "ssl_check_hostname": True,
        }
    return None


def check_broker(app: Celery, timeout_s: float = TIMEOUT_S) -> None:
    """Connect once, and see that queues can be declared.

    Raises:
        BrokerUnavailable: it does not answer, or refuses the password or the certificate fails.
    """
    with _connected(app, timeout_s) as connection:
        # The Redis transport connects only when it is used.
        app.amqp.queues[app.conf.task_default_queue].bind(connection.default_channel).declare()


def queue_lengths(app: Celery, timeout_s: float = TIMEOUT_S) -> dict[str, int]:
    """Messages that wait in each queue, by the queue's name in the profile.

    A queue that nobody has used yet has none, and is not made.

    Raises:
        BrokerUnavailable: as :func:`check_broker`.
    """
    with _connected(app, timeout_s) as connection:
        return {queue.alias: _length(connection, queue.name) for queue in app.conf.task_queues}


def _length(connection: Any, name: str) -> int:
    channel = connection.channel()  # RabbitMQ closes the channel that asks for an unknown queue
    try:
        return int(channel.queue_declare(queue=name, passive=True).message_count)
    except connection.channel_errors as error:
        if NOT_FOUND not in str(error):
            raise
        return 0
    finally:
        channel.close()


@contextmanager
def _connected(app: Celery, timeout_s: float) -> Iterator[Any]:
    options = dict(app.conf.broker_transport_options)
    if "socket_timeout" in options:
        options |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    connection: Any = app.connection_for_write(connect_timeout=timeout_s, transport_options=options)
    faults = (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=timeout_s)
        yield connection
    except faults as error:
        raise BrokerUnavailable(_diagnosis(str(app.conf.broker_url), error)) from None
    finally:
        connection.release()


def _diagnosis(broker_url: str, error: BaseException) -> str:
    """What is wrong and how to mend it, in one line without a password."""
    causes = list(_causes(error))
    broker = f"broker {shown(broker_url)}"
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return f"{broker} {_tls_trouble(cause)}"
    text = next((str(cause).splitlines()[0] for cause in causes if str(cause)), "no reason given")
    everything = " ".join(f"{type(cause).__name__} {cause}" for cause in causes)
    for words, trouble in TROUBLES:
        if any(word in everything for word in words):
            return f"{broker} {trouble.format(text=text)}"
    hint = f"; behind TLS its scheme is {WITH_TLS}" if _is_cut_off(broker_url, everything) else ""
    return f"{broker} does not answer ({text}): start it, or correct UPTIER_BROKER_URL{hint}"


def _is_cut_off(broker_url: str, everything: str) -> bool:
    plain = urlsplit(broker_url).scheme not in ("rediss", "amqps")
    return plain and any(word in everything for word in ("reset by peer", "closed"))


def _tls_trouble(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or "it cannot be verified"
        if error.verify_code in OTHER_HOST:
            return (
                f"has a certificate for another host ({reason}): name it in UPTIER_BROKER_URL as "
                "its certificate does"
            )
        return (
            f"has a certificate that is not trusted ({reason}): set UPTIER_BROKER_CA_FILE to the "
            "PEM file of the authority that signed it"
        )
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return f"does not agree on TLS ({reason}): correct the scheme and the port in UPTIER_BROKER_URL"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
