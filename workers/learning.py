"""What the steward learns of the ledger now and then: certificates, drift, lanes' history."""

from __future__ import annotations

import logging

from sqlalchemy import Engine

from config.catalog import Catalog
from ledger import lane_history
from ledger.certificates import Standing
from ledger.clock import SECOND
from workers import policies
from workers.certifying import certify, wants_certificates, watch

log = logging.getLogger(__name__)

LOOK_US = 60 * SECOND
CERTIFY_US = 300 * SECOND


class Learning:
    """Counts and certifies at its own pace, however often it is called."""

    def __init__(self, engine: Engine, catalog: Catalog) -> None:
        self._engine = engine
        self._catalog = catalog
        self._look_at = 0
        self._certify_at = 0

    def round(self, now: int) -> None:
        """Do what is due, whatever becomes of the rest of it."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_US
        for part in (self._watch, self._policy, self._certify, self._count):
            try:
                part(now)
            except Exception as error:
                log.warning("learning failed in part: %s: %s", type(error).__name__, error)

    def _watch(self, now: int) -> None:
        for one in watch(self._engine, now):
            log.warning("the certificate of %s for %s has lapsed", one.scope.lane, one.scope.kind)

    def _policy(self, now: int) -> None:
        lapsed = policies.watch(self._engine, self._catalog, now)
        if lapsed is not None:
            log.warning("the policy learnt from run %s has lapsed", lapsed.run)

    def _count(self, now: int) -> None:
        if self._catalog.routing.learn:
            lane_history.count(self._engine, now)

    def _certify(self, now: int) -> None:
        if now < self._certify_at or not wants_certificates(self._catalog):
            return
        self._certify_at = now + CERTIFY_US
        for one in certify(self._engine, self._catalog, now):
            if one.made is not None and one.made.standing is Standing.IN_FORCE:
                log.info(
                    "%s is certified for %s with %d labels",
                    one.scope.lane, one.scope.kind, one.labels,
                )  # fmt: skip
