"""Profiles as projections see them: where kinds begin, and what models charge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config.catalog import Catalog
from config.errors import InputError
from config.load import without_absent_lanes
from config.prices import Price
from ledger.usage import Place
from routing.decision import Decision, TextOutput
from routing.policy import plan


@dataclass(frozen=True)
class Ladder:
    """The lanes of a profile as if every key were there.

    ``cloud`` is the model that answers on all API lanes; absent: each lane's own.
    """

    catalog: Catalog
    cloud: str | None = None

    @property
    def api_model(self) -> str | None:
        """The model that local lanes fall back to: of the lowest tier's first API lane."""
        catalog = self.catalog
        lanes = [lane for lane in sorted(catalog.lanes, key=catalog.rank) if catalog.is_paid(lane)]
        if self.cloud is not None:
            return self.cloud
        return catalog.lanes[lanes[0]].model if lanes else None

    def charge(self, lane: str) -> Price:
        """What calls of a lane cost."""
        if self.place_of(lane) is Place.LOCAL:
            return Price()
        return self.catalog.models[self.cloud or self.catalog.lanes[lane].model].price

    def lane_of(self, kind: str) -> str:
        """The lane that a plain question of a kind begins on, by the profile's routing."""
        asked = Decision(kind=kind, prompt="?", output=TextOutput(), key=kind)
        return plan(asked, self.catalog, ()).lanes[0]

    def first_of(self, tier: str, workload: str) -> str:
        """The first lane of a tier; empty if it has none.

        Raises:
            InputError: the profile has no such tier.
        """
        if tier not in self.catalog.tiers:
            raise InputError(
                f"workload {workload!r} has calls on tier {tier!r}, which profile "
                f"{self.catalog.profile!r} has not (it has {', '.join(self.catalog.tiers)}): "
                "choose another --profile"
            )
        lanes = self.catalog.lanes.items()
        return next((name for name, lane in lanes if lane.tier == tier), "")

    def place_of(self, lane: str) -> Place:
        """Where calls of a lane are made."""
        return Place.API if lane and self.catalog.is_paid(lane) else Place.LOCAL


def ladder_of(catalog: Catalog, cloud: str | None = None) -> Ladder:
    """The ladder of a whole profile.

    Raises:
        InputError: the profile has no model ``cloud``, or that has no price.
    """
    if cloud is not None:
        price_of(catalog, cloud, "--cloud")
    usable, _ = without_absent_lanes(catalog, lambda name: name)  # prices need no key
    return Ladder(usable, cloud)


def price_of(catalog: Catalog, model: str, option: str = "--reference") -> Price:
    """The price of a model of the catalog.

    Raises:
        InputError: there is no such model, or it has no price.
    """
    priced = [name for name, one in catalog.models.items() if one.price.input or one.price.output]
    if model not in priced:
        what = "has no price in" if model in catalog.models else "is not in"
        raise InputError(
            f"{option} {model!r} {what} profile {catalog.profile!r}: choose one of "
            f"{', '.join(priced) or 'another profile, this one has no prices'}"
        )
    return catalog.models[model].price


def references_of(
    catalog: Catalog, named: Sequence[str], stated: Sequence[str] = ()
) -> dict[str, Price]:
    """Reference models with their prices: those named, else those that a workload states and the
    profile has, and the profile's own.

    Raises:
        InputError: one is unknown or has no price, or there is none.
    """
    names = [*named]
    if not names:
        own = catalog.reference_model
        names = [name for name in stated if name in catalog.models] + ([own] if own else [])
    if not names:
        raise InputError(
            f"profile {catalog.profile!r} names no reference_model: name one with --reference"
        )
    return {name: price_of(catalog, name) for name in dict.fromkeys(names)}
