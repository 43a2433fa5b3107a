"""What routing needs of a catalog, worked out once: facts of lanes, ladders, rules."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from config.catalog import Catalog, Kind, Lane, Rule
from config.errors import ConfigurationError
from config.strategies import Band, Strategy
from routing.decision import Complexity, Decision, Preferences, Privacy, Signals

GENERAL = "general"
"""The speciality of lanes and kinds that have none."""
NANOS = 1_000
"""Billionths of a dollar in a millionth: a token may cost less than a micro-dollar."""

Ladder = Mapping[str, tuple[str, ...]]
"""Lanes by tier, in the order in which they are asked."""


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """What is known of a lane beforehand; prices in billionths of a dollar per token."""

    name: str
    tier: str
    rank: int
    local: bool
    speciality: str
    adapters: frozenset[str]
    quality: float
    latency_ms: float
    ms_per_token: float | None
    nanos_in: int
    nanos_out: int
    max_tokens: int
    """Of an answer that the decision does not bound."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A rule, taken apart: what must equal what."""

    kind: object
    complexity: object
    signals: tuple[tuple[str, object], ...]
    preferences: tuple[tuple[str, object], ...]
    rule: Rule

    def fits(self, decision: Decision, complexity: Complexity) -> bool:
        """Whether everything in the rule's ``when`` is true."""
        # Plain loops: this runs for every rule of every decision.
        for name, value in self.signals:
            if getattr(decision.signals, name) != value:
                return False
        for name, value in self.preferences:
            if getattr(decision.preferences, name) != value:
                return False
        return self.kind in (None, decision.kind) and self.complexity in (None, complexity)


@dataclass(slots=True)
class Digest:
    """A catalog's knowledge for routing."""

    lanes: dict[str, LaneFacts]
    kinds: Mapping[str, Kind]
    unknown: Kind
    ranks: dict[str, int]
    """Of tiers."""
    tiers: tuple[str, ...]
    """From the cheapest up."""
    upwards: dict[str, tuple[str, ...]]
    """Each tier with those above it."""
    rules: tuple[Condition, ...]
    raises: tuple[Condition, ...]
    served: frozenset[str]
    """Specialities that a lane has."""
    known: tuple[str, ...]
    """All specialities that the catalog names."""
    at_home: bool
    """Whether the profile's own preset keeps every decision on the machine."""
    plain: bool
    """Whether neither the profile nor its preset wishes anything."""
    _ladders: dict[tuple[bool, str], Ladder] = field(default_factory=dict)

    def kind(self, name: str) -> Kind:
        """The kind of that name, or the treatment of unknown kinds."""
        return self.kinds.get(name, self.unknown)

    def may_see(self, lane: str, privacy: Privacy) -> bool:
        """Whether a lane may read a decision of that privacy."""
        return self.lanes[lane].local or not (self.at_home or privacy.stays_home)

    def ladder(self, privacy: Privacy, speciality: str) -> Ladder:
        """The lanes that may be asked, by tier, in their order."""
        key = (self.at_home or privacy.stays_home, speciality)
        found = self._ladders.get(key)
        if found is None:
            found = self._ladders[key] = {t: self._tier(t, *key) for t in self.tiers}
        return found

    def _tier(self, tier: str, at_home: bool, speciality: str) -> tuple[str, ...]:
        """The specialist, then the generalist.

        One local model of a sort is enough, for the same sort would fail alike; providers may be
        down one by one, so all of them follow.
        """
        here = [facts for facts in self.lanes.values() if facts.tier == tier]
        local = [facts for facts in here if facts.local]
        remote = [] if at_home else [facts for facts in here if not facts.local]

        def of(facts: Sequence[LaneFacts], sort: str) -> list[LaneFacts]:
            return [one for one in facts if one.speciality == sort]

        own = [*of(local, speciality)[:1], *of(local, GENERAL)[:1]] or local[:1]
        paid = [*of(remote, speciality), *of(remote, GENERAL), *remote]
        return tuple(dict.fromkeys(facts.name for facts in (*own, *paid)))


_DIGESTS: dict[int, tuple[weakref.ref[Catalog], Digest]] = {}


def digest_of(catalog: Catalog) -> Digest:
    """The digest of a catalog, made once and kept as long as the catalog lives.

    Raises:
        ConfigurationError: a rule names something that decisions do not have.
    """
    key = id(catalog)
    found = _DIGESTS.get(key)
    if found is not None and found[0]() is catalog:
        return found[1]
    made = _digest(catalog)

    def forget(gone: weakref.ref[Catalog]) -> None:
        held = _DIGESTS.get(key)
        if held is not None and held[0] is gone:  # the number may have a new owner already
            del _DIGESTS[key]

    _DIGESTS[key] = (weakref.ref(catalog, forget), made)
    return made


def _digest(catalog: Catalog) -> Digest:
    routing = catalog.routing
    by_rank = sorted(catalog.tiers, key=lambda tier: catalog.tiers[tier].rank)
    lanes = {name: _facts(name, lane, catalog) for name, lane in catalog.lanes.items()}
    preset = catalog.presets[routing.preset] if routing.preset is not None else None
    named = [
        GENERAL,
        *(lane.speciality for lane in catalog.lanes.values()),
        *(model.speciality for model in catalog.models.values()),
        *(kind.speciality for kind in catalog.kinds.values() if kind.speciality is not None),
        *catalog.specialities,
    ]
    return Digest(
        lanes=lanes,
        kinds=catalog.kinds,
        unknown=Kind(tier=routing.unknown_kind_tier),
        ranks={tier: catalog.tiers[tier].rank for tier in by_rank},
        tiers=tuple(by_rank),
        upwards={tier: _upwards(tier, by_rank, catalog) for tier in by_rank},
        rules=_conditions(routing.rules, "rules"),
        raises=_conditions(routing.raises, "raises"),
        served=frozenset(facts.speciality for facts in lanes.values()),
        known=tuple(dict.fromkeys(named)),
        at_home=preset is not None and Privacy(preset.privacy).stays_home,
        plain=preset is None and routing.strategy is Strategy.LOCAL_FIRST,
    )


def _upwards(tier: str, by_rank: Sequence[str], catalog: Catalog) -> tuple[str, ...]:
    rank = catalog.tiers[tier].rank
    return (tier, *(other for other in by_rank if catalog.tiers[other].rank > rank))


def _facts(name: str, lane: Lane, catalog: Catalog) -> LaneFacts:
    model = catalog.models[lane.model]
    local, rank = catalog.is_local(lane.model), catalog.tiers[lane.tier].rank
    band = _band(catalog, local, rank)
    prices = (model.price.input, model.price.output)
    if local and not any(prices):
        prices = (_amortised(catalog, lane.model),) * 2
    speed = model.expected_tokens_per_s
    return LaneFacts(
        name=name,
        tier=lane.tier,
        rank=rank,
        local=local,
        speciality=lane.speciality,
        adapters=frozenset(model.adapters),
        quality=band.quality if model.quality is None else model.quality,
        latency_ms=band.latency_ms if model.latency_ms is None else model.latency_ms,
        ms_per_token=None if speed is None or model.latency_ms is not None else 1000 / speed,
        nanos_in=int(prices[0] * NANOS),
        nanos_out=int(prices[1] * NANOS),
        max_tokens=catalog.sampling(name).max_tokens,
    )


def _band(catalog: Catalog, local: bool, rank: int) -> Band:
    bands = catalog.routing.bands
    if not local:
        return bands.cloud
    return bands.fast if rank == 1 else bands.local


def _amortised(catalog: Catalog, model_name: str) -> Decimal:
    """Dollars per million tokens of work on an own machine."""
    model = catalog.models[model_name]
    if model.amortised_per_million is not None:
        return model.amortised_per_million
    size = Decimal(str(model.parameters_b or 1))
    return catalog.routing.local_cost.usd_per_million_per_billion * size


def _conditions(rules: Sequence[Rule], name: str) -> tuple[Condition, ...]:
    return tuple(_condition(rule, f"routing.{name}[{i}]") for i, rule in enumerate(rules))


def _condition(rule: Rule, place: str) -> Condition:
    when = dict(rule.when)
    wishes = Preferences.model_fields
    facts = {"kind", "complexity", *Signals.model_fields, *wishes}
    for name in when:
        if name not in facts:
            choices = ["kind", *Signals.model_fields, *wishes]
            raise ConfigurationError(
                f"{place}.when.{name} is neither a signal nor a preference: choose one of "
                f"{', '.join(choices)}"
            )
    return Condition(
        kind=when.pop("kind", None),
        complexity=when.pop("complexity", None),
        signals=tuple((n, v) for n, v in when.items() if n in Signals.model_fields),
        preferences=tuple((n, v) for n, v in when.items() if n in wishes),
        rule=rule,
    )
