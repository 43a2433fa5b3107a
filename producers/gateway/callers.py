"""Who asks: callers by their keys, and what may ask where there are none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request

from config.errors import ConfigurationError, InputError
from config.gateway import ApiKey, digest, load_keys
from config.hosts import host_of, is_loopback
from producers.gateway.errors import Fault
from routing.decision import Payer, Privacy

log = logging.getLogger(__name__)

LOOK_S = 2
"""How often the keys file is looked at for changes."""


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request; without keys it has no name, and nothing binds it."""

    name: str = ""
    payer: Payer | None = None
    privacy: Privacy = Privacy.LOW
    max_concurrent: int | None = None


NOBODY = Caller()


@dataclass
class Keyring:
    """The keys that are let in; read anew when their file changes."""

    path: Path | None
    plain: str = ""
    clock: Callable[[], float] = time.monotonic
    _callers: dict[str, Caller] = field(default_factory=dict)
    _seen: tuple[int, int] | None = None
    _looked: float = 0.0

    def __post_init__(self) -> None:
        """Read the keys; raises ConfigurationError where they cannot be."""
        self._seen, self._looked = self._state(), self.clock()
        self._callers = _callers(load_keys(self.path, self.plain))

    @property
    def is_open(self) -> bool:
        """Whether anybody may ask."""
        return not self._callers

    def caller(self, request: Request) -> Caller:
        """Who sent a request.

        Raises:
            Fault: 401 without a key that is known; 403 where a page of the web asks a gateway
                without keys.
        """
        self._look_again()
        if self.is_open:
            refuse_the_web(request)
            return NOBODY
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _no_entry("no key: send it as `Authorization: Bearer KEY`")
        # How long this takes tells at most something of a hash, and nothing of a key.
        found = self._callers.get(digest(key.strip()))
        if found is None:
            raise _no_entry("the key is not known here: check it, or ask for one")
        return found

    def _look_again(self) -> None:
        now = self.clock()
        if self.path is None or now - self._looked < LOOK_S:
            return
        self._looked = now
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._callers = _callers(load_keys(self.path, self.plain))
            log.info("the keys were read anew: %d", len(self._callers))
        except ConfigurationError as error:
            log.error("the keys stay as they were: %s", error)

    def _state(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


def refuse_open_house(host: str, keys: Keyring) -> None:
    """Without keys only this machine may ask.

    Raises:
        InputError: ``host`` is reached from elsewhere, and there are no keys.
    """
    if keys.is_open and not is_loopback(host):
        raise InputError(
            f"--host {host!r} lets others ask, and there are no keys: give --keys FILE, or bind "
            "127.0.0.1"
        )


def refuse_the_web(request: Request) -> None:
    """A gateway without keys answers programs of this machine, not pages that its browser shows.

    A page can send requests here under its own name, or have its name lead here.
    """
    named = ["//" + request.headers.get("host", ""), request.headers.get("origin")]
    if not all(is_loopback(host_of(one)) for one in named if one is not None):
        raise Fault(403, "without keys only programs of this machine are served: use --keys",
                    code="forbidden", kind="permission_error")  # fmt: skip


def _callers(keys: dict[str, ApiKey]) -> dict[str, Caller]:
    return {key.sha256: _caller(name, key) for name, key in keys.items()}


def _caller(name: str, key: ApiKey) -> Caller:
    payer = Payer(name=name, budget_usd=key.budget_usd, per_day_usd=key.per_day_usd)
    return Caller(name, payer, Privacy(key.privacy), key.max_concurrent)


def _no_entry(message: str) -> Fault:
    return Fault(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
