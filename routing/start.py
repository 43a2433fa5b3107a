"""The tier where a decision starts: rules, the asker's wish, overrides, then its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config.catalog import Catalog, Rule
from config.errors import ConfigurationError, InputError
from routing.critique import CRITIC_KIND
from routing.decision import Decision


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
    rule = _first_match(routing.rules, "rules", decision)
    if rule is not None:
        overruled = forced is not None and forced != rule.tier
        note = f"force_tier {forced} is overruled: {rule.reason}" if overruled else None
        return Start(rule.tier, f"{rule.reason}, so it goes to {rule.tier}", note)
    if forced is not None:
        return Start(forced, f"the asker wants {forced}")
    if kind in routing.overrides:
        tier = routing.overrides[kind]
        return Start(tier, f"an override sends kind {kind} to {tier}")
    return _by_kind(decision, catalog)


def _by_kind(decision: Decision, catalog: Catalog) -> Start:
    kind, own = decision.kind, catalog.kind(decision.kind).tier
    lift = _first_match(catalog.routing.raises, "raises", decision)
    if lift is not None and catalog.tiers[lift.tier].rank > catalog.tiers[own].rank:
        return Start(lift.tier, f"{lift.reason}, so it is lifted from {own} to {lift.tier}")
    if kind in catalog.kinds:
        return Start(own, f"kind {kind} belongs to {own}")
    return Start(own, f"kind {kind} is unknown, and such kinds belong to {own}")


def _first_match(rules: Sequence[Rule], name: str, decision: Decision) -> Rule | None:
    facts: dict[str, object] = {
        "kind": decision.kind,
        **dict(decision.signals),
        **dict(decision.preferences),
    }
    for index, rule in enumerate(rules):
        unknown = next((key for key in rule.when if key not in facts), None)
        if unknown is not None:
            raise ConfigurationError(
                f"routing.{name}[{index}].when.{unknown} is neither a signal nor a preference: "
                f"choose one of {', '.join(facts)}"
            )
        if all(facts[key] == value for key, value in rule.when.items()):
            return rule
    return None
