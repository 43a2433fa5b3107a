"""Which colour stands for what: the same on every chart of a page."""

from __future__ import annotations

from config.catalog import Catalog
from routing.decision import State, Status

LANE_FILLS = 6
"""Colours for lanes in the style sheet; further lanes begin again."""
CACHE, NONE = "from the cache", "no model"
STATUS_FILLS = {
    Status.ACCEPTED.value: "good",
    Status.CACHED.value: "cache",
    Status.REPLAYED.value: "cache",
    Status.DEGRADED.value: "fair",
    **{state.value: "muted" for state in State},
}
"""Other endings are bad ones; what has a state in their place has not ended yet."""


class Palette:
    """The colours of one profile: lanes in the order of their tiers."""

    def __init__(self, catalog: Catalog) -> None:
        ranked = sorted(catalog.lanes, key=lambda n: (catalog.tiers[catalog.lanes[n].tier].rank, n))
        self.lanes = ranked

    def order(self, lane: str) -> tuple[int, str]:
        """Where a lane stands among others; those of another profile come last."""
        return (self.lanes.index(lane) if lane in self.lanes else len(self.lanes), lane)

    def lane(self, lane: str) -> str:
        """The class of a lane's colour."""
        return f"lane{self.order(lane)[0] % LANE_FILLS}"

    def ending(self, status: str) -> str:
        """The class of an ending's colour."""
        return STATUS_FILLS.get(status, "bad")

    def answerer(self, lane: str | None, status: str) -> tuple[str, str]:
        """Who answered, in words, and the class of its colour."""
        if status in (Status.CACHED.value, Status.REPLAYED.value):
            return CACHE, "cache"
        return (lane, self.lane(lane)) if lane else (NONE, "bad")
