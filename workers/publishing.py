"""Sends what a transaction left to be sent: messages first, then notices."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from config.queues import notify, send
from ledger import outbox, tracing
from ledger.records import Ended
from ledger.rulings import Followers
from routing.decision import Status

log = logging.getLogger(__name__)


UNWELL = frozenset((Status.DEAD, Status.EXPIRED, Status.BUDGET, Status.FALLBACK))
"""Ends that an operator may want to look into."""


def tell(ended: Sequence[Ended]) -> None:
    """Log and trace decisions that settled."""
    for one in ended:
        level = logging.INFO if one.status in UNWELL else logging.DEBUG
        if log.isEnabledFor(level):
            told = {"run": one.run_id, "decision": one.id, "kind": one.kind,
                    "lane": one.lane, "status": one.status}  # fmt: skip
            log.log(level, "a decision settled", extra=told)
    tracing.settled(ended)


class Publisher:
    """Publishes through one Celery application; a broker that is away costs only time, since
    the outbox keeps the messages and producers also poll the ledger."""

    def __init__(self, app: Celery, engine: Engine) -> None:
        self._app = app
        self._engine = engine

    def publish(self, followers: Followers) -> bool:
        """Send messages and notices; whether broker and ledger took all of it."""
        tell(followers.ended)
        try:
            outbox.publish(self._engine, followers.messages, lambda m: send(self._app, m))
            if followers.settled:
                notify(self._app, followers.settled)
        except (OperationalError, OSError) as error:
            log.warning("broker away, the steward will publish: %s", error)
        except DBAPIError as error:
            # Sent, but not struck off: it will be sent again, and then finds nothing to do.
            log.warning("ledger away, messages will go out twice: %s", error.orig)
        else:
            return True
        return False
