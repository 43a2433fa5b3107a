"""The tier where a decision starts: rules, the asker's wish, overrides, then its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config.catalog import Catalog, Rule
from config.errors import ConfigurationError, InputError
from routing.critique import CRITIC_KIND
from routing.decision import Decision

Facts = Mapping[str, object]
"""What rules may ask of a decision: its kind, its signals and its preferences, by name."""


@dataclass(frozen=True)
class Start:
    """The tier where a decision is to start, and why; ``note`` is what was overruled."""

    tier: str
    reason: str
    note: str | None = None


def starting_tier(decision: Decision, catalog: Catalog) -> Start:
    """The first that has a say: a rule, the forced tier, an override, the kind.

    Raises:
        InputError: the forced tier is unknown.
        ConfigurationError: a rule names something that decisions do not have.
    """
    routing, kind = catalog.routing, decision.kind
    forced = decision.preferences.force_tier
    if forced is not None and forced not in catalog.tiers:
        raise InputError(
            f"force_tier {forced!r} is not a tier of profile {catalog.profile!r}: choose one of "
            f"{', '.join(catalog.tiers)}"
        )
    if kind == CRITIC_KIND:
        return Start(routing.critic_tier, f"critiques are answered on {routing.critic_tier}")
    facts = _facts(decision)
    rule = _first_match(routing.rules, "rules", facts)
    if rule is not None:
        overruled = forced is not None and forced != rule.tier
        note = f"force_tier {forced} is overruled: {rule.reason}" if overruled else None
        return Start(rule.tier, f"{rule.reason}, so it goes to {rule.tier}", note)
    if forced is not None:
        return Start(forced, f"the asker wants {forced}")
    if kind in routing.overrides:
        tier = routing.overrides[kind]
        return Start(tier, f"an override sends kind {kind} to {tier}")
    return _by_kind(kind, facts, catalog)


def _by_kind(kind: str, facts: Facts, catalog: Catalog) -> Start:
    own = catalog.kind(kind).tier
    lift = _first_match(catalog.routing.raises, "raises", facts)
    if lift is not None and catalog.tiers[lift.tier].rank > catalog.tiers[own].rank:
        return Start(lift.tier, f"{lift.reason}, so it is lifted from {own} to {lift.tier}")
    if kind in catalog.kinds:
        return Start(own, f"kind {kind} belongs to {own}")
    return Start(own, f"kind {kind} is unknown, and such kinds belong to {own}")


def _facts(decision: Decision) -> Facts:
    return {"kind": decision.kind, **vars(decision.signals), **vars(decision.preferences)}


def _first_match(rules: Sequence[Rule], name: str, facts: Facts) -> Rule | None:
    for index, rule in enumerate(rules):
        if not rule.when.keys() <= facts.keys():
            unknown = min(rule.when.keys() - facts.keys())
            raise ConfigurationError(
                f"routing.{name}[{index}].when.{unknown} is neither a signal nor a preference: "
                f"choose one of {', '.join(facts)}"
            )
        if all(facts[key] == value for key, value in rule.when.items()):
            return rule
    return None
