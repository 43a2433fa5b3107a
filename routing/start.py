"""The tier where a decision starts: rules, the asker's wish, overrides, then its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config.catalog import Catalog, Rule
from config.errors import InputError
from routing.classification import CLASSIFICATION_KIND
from routing.critique import CRITIC_KIND
from routing.decision import Complexity, Decision
from routing.digest import Condition, Digest, Ladder, digest_of
from routing.specialists import Specialist


@dataclass(frozen=True, slots=True)
class Start:
    """The tier where a decision is to start, and why; ``note`` is what was overruled.

    ``binding`` is false where only the kind's own tier speaks, which a strategy or experience may
    improve on.
    """

    tier: str
    reason: str
    note: str | None = None
    binding: bool = True


def starting_tier(
    decision: Decision,
    catalog: Catalog,
    klass: Complexity,
    specialist: Specialist,
    ladder: Ladder,
) -> Start:
    """The first that has a say: a rule, the forced lane or tier, the forced specialist, an
    override, the kind.

    Raises:
        InputError: the forced tier or lane is unknown, or they do not go together.
        ConfigurationError: a rule names something that decisions do not have.
    """
    forced, wanted = _forced_tier(decision, catalog)
    critic_tier = catalog.routing.critic_tier
    if decision.kind == CRITIC_KIND:
        return Start(critic_tier, f"critiques are answered on {critic_tier}")
    if decision.kind == CLASSIFICATION_KIND:
        return Start(critic_tier, f"requests are classified on {critic_tier}")
    digest = digest_of(catalog)
    rule = _first_match(digest.rules, decision, klass)
    if rule is not None:
        overruled = forced is not None and forced != rule.tier
        note = f"{wanted} is overruled: {rule.reason}" if overruled else None
        return Start(rule.tier, f"{rule.reason}, so it goes to {rule.tier}", note)
    if forced is not None:
        lane = decision.preferences.force_lane
        return Start(forced, f"the asker wants {forced if lane is None else f'lane {lane}'}")
    usual = _by_table(decision, catalog, digest, klass)
    if specialist.forced:
        return _at_the_specialist(usual, specialist, ladder, digest)
    return usual


def _forced_tier(decision: Decision, catalog: Catalog) -> tuple[str | None, str]:
    """The tier that the asker forces, by its name or by a lane of it, and the wish in words."""
    forced, lane = decision.preferences.force_tier, decision.preferences.force_lane
    if forced is not None and forced not in catalog.tiers:
        raise InputError(
            f"force_tier {forced!r} is not a tier of profile {catalog.profile!r}: choose one of "
            f"{', '.join(catalog.tiers)}"
        )
    if lane is None:
        return forced, f"force_tier {forced}"
    if lane not in catalog.lanes:
        raise InputError(
            f"force_lane {lane!r} is not a lane that profile {catalog.profile!r} can use here: "
            f"choose one of {', '.join(catalog.lanes)}"
        )
    tier = catalog.lanes[lane].tier
    if forced not in (None, tier):
        raise InputError(
            f"force_lane {lane!r} is on tier {tier}, and force_tier is {forced!r}: drop one of them"
        )
    return tier, f"force_lane {lane}"


def _by_table(decision: Decision, catalog: Catalog, digest: Digest, klass: Complexity) -> Start:
    kind = decision.kind
    if kind in catalog.routing.overrides:
        tier = catalog.routing.overrides[kind]
        return Start(tier, f"an override sends kind {kind} to {tier}")
    own = digest.kind(kind).tier
    lift = _first_match(digest.raises, decision, klass)
    if lift is not None and digest.ranks[lift.tier] > digest.ranks[own]:
        return Start(lift.tier, f"{lift.reason}, so it is lifted from {own} to {lift.tier}")
    if kind in digest.kinds:
        return Start(own, f"kind {kind} belongs to {own}", binding=False)
    reason = f"kind {kind} is unknown, and such kinds belong to {own}"
    return Start(own, reason, binding=False)


def _at_the_specialist(
    usual: Start, specialist: Specialist, ladder: Ladder, digest: Digest
) -> Start:
    """The tier with the wanted specialist: the usual one, the next above, else below it."""
    theirs = [
        tier
        for tier, lanes in ladder.items()
        if any(digest.lanes[lane].speciality == specialist.name for lane in lanes)
    ]
    if not theirs:
        note = f"no lane for {specialist.name} can be used: others answer"
        return Start(usual.tier, usual.reason, note, usual.binding)
    rank = digest.ranks[usual.tier]
    above = [tier for tier in theirs if digest.ranks[tier] >= rank]
    tier = above[0] if above else theirs[-1]
    reason = usual.reason if tier == usual.tier else f"{specialist.reason}, on {tier}"
    return Start(tier, reason)


def _first_match(
    conditions: Sequence[Condition], decision: Decision, klass: Complexity
) -> Rule | None:
    for condition in conditions:
        if condition.fits(decision, klass):
            return condition.rule
    return None
