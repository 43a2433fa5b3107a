"""What lies in the broker: waiting messages, those in somebody's hands, and all keys."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis

PREFIX = "uptier:"


@dataclass(frozen=True)
class Held:
    """A message that was delivered and is not acknowledged."""

    tag: str
    queue: str
    ids: tuple[str, ...]


class Broker:
    """Looks into a Redis or Valkey server past Celery."""

    def __init__(self, url: str, queues: Iterable[str]) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=5, decode_responses=True)
        self._queues = tuple(queues)

    def waiting(self) -> dict[str, int]:
        """Messages in each queue that has some."""
        lengths = {q: int(self._client.llen(PREFIX + q)) for q in self._queues}
        return {queue: length for queue, length in lengths.items() if length}

    def held(self) -> list[Held]:
        """Messages that were delivered and are not acknowledged."""
        rows: Any = self._client.hgetall(f"{PREFIX}unacked")
        found = []
        for tag, text in rows.items():
            message, _, queue = json.loads(text)
            found.append(Held(tag, queue, ids_of(message)))
        return found

    def indexed(self) -> int:
        """Entries in the index of unacknowledged messages."""
        return int(self._client.zcard(f"{PREFIX}unacked_index"))

    def steal(self, queue: str) -> tuple[str, ...] | None:
        """Delete one waiting message; the ids that it bore, or ``None`` if none waits."""
        text: Any = self._client.lpop(PREFIX + queue)
        return None if text is None else ids_of(json.loads(text))

    def flush(self) -> None:
        """Delete everything."""
        self._client.flushall()

    def sizes(self) -> dict[str, int]:
        """Every key with the number of its members."""
        measures = {"list": "llen", "hash": "hlen", "zset": "zcard", "set": "scard"}
        found = {}
        for key in self._client.scan_iter(count=1000):
            measure = measures.get(str(self._client.type(key)))
            found[key] = int(getattr(self._client, measure)(key)) if measure else 1
        return found

    def wait_empty(self, within_s: float) -> str | None:
        """Wait until nothing waits and nothing is held; else what is left, in words."""
        deadline = time.monotonic() + within_s
        while True:
            left = (self.waiting(), self.held(), self.indexed())
            if not any(left):
                return None
            if time.monotonic() > deadline:
                return f"waiting {left[0]}, unacknowledged {left[1]}, indexed {left[2]}"
            time.sleep(0.2)

    def close(self) -> None:
        """End the connections."""
        self._client.close()


def ids_of(message: dict[str, Any]) -> tuple[str, ...]:
    """The decisions that a message names; none for what is not a task of Uptier."""
    try:
        arguments = json.loads(base64.b64decode(message["body"]))[0]
        return tuple(arguments[-1])
    except (KeyError, IndexError, TypeError, ValueError):
        return ()
