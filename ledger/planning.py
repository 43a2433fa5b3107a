"""Plans decisions for submission: what every way into the ledger has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import InputError
from config.load import AbsentLane
from config.settings import Settings
from ledger.clock import Clock, now
from ledger.lane_history import LaneHistory
from ledger.lanes import closed_lanes
from ledger.patience import patiently
from ledger.policies import Policies
from ledger.records import Planned
from routing.decision import CacheScope, Decision
from routing.policy import plan
from routing.wishes import as_private_as_wished


class Planner:
    """Plans with what the ledger knows now: breakers, experience, the policy in force.

    ``cache`` is the scope of decisions that leave theirs open. Safe to share between threads.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        cache: CacheScope | None = None,
        clock: Clock = now,
    ) -> None:
        self._settings = settings
        self._catalog = settings.catalog
        self._engine = engine
        self._cache = cache
        self._clock = clock
        self._history = LaneHistory(engine, self._catalog, clock)
        self._policies = Policies(engine, clock)

    def plan(self, decisions: Sequence[Decision]) -> list[Planned]:
        """The decisions with their plans, in the same order.

        Raises:
            InputError: one cannot be planned; none is.
        """
        closed = patiently(closed_lanes, self._engine, self._catalog, self._clock())
        narrowed = narrow(self._catalog, closed)
        return [self._planned(decision, narrowed, closed) for decision in decisions]

    def _planned(
        self, decision: Decision, narrowed: Catalog, closed: Mapping[str, AbsentLane]
    ) -> Planned:
        if self._cache is not None and decision.preferences.cache is CacheScope.SHARED:
            preferences = decision.preferences.model_copy(update={"cache": self._cache})
            decision = decision.model_copy(update={"preferences": preferences})
        catalog, absent = self._catalog, self._settings.absent_lanes
        learned, live = self._history.learned(), self._policies.find()
        decision = as_private_as_wished(decision, catalog)
        if narrowed is not catalog:
            try:
                without = (*absent, *closed.values())
                return Planned(decision, plan(decision, narrowed, without, learned, live))
            except InputError:
                pass  # nothing else may answer it; it waits for the lane
        found = plan(decision, catalog, absent, learned, live)
        waits = [f"waits: {closed[lane].reason}" for lane in found.lanes if lane in closed]
        if waits:
            found = found.model_copy(update={"notes": (*found.notes, *waits)})
        return Planned(decision, found)


def narrow(catalog: Catalog, closed: Mapping[str, AbsentLane]) -> Catalog:
    """The catalog without closed lanes, or as it is where nothing would be left."""
    if not closed or len(closed) >= len(catalog.lanes):
        return catalog
    lanes = {name: lane for name, lane in catalog.lanes.items() if name not in closed}
    return catalog.model_copy(update={"lanes": lanes})
