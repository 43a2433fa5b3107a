"""Where a decision goes: the lanes it may climb, in order, each with its reason in words."""

from __future__ import annotations

from collections.abc import Container, Sequence

from config.catalog import Catalog
from config.errors import InputError
from config.load import AbsentLane
from routing.complexity import complexity
from routing.decision import Decision, Hop, JsonOutput, Plan, Privacy
from routing.start import Start, starting_tier
from routing.structured import schema_fault

GENERAL = "general"
"""The speciality of lanes and kinds that have none."""


def plan(decision: Decision, catalog: Catalog, absent: Sequence[AbsentLane]) -> Plan:
    """The lanes of a decision.

    ``catalog`` holds the lanes that can be used here, ``absent`` those that cannot. Privacy is
    a filter before everything else. The plan starts where :func:`starting_tier` says and climbs
    tier by tier; where that tier has no lane, it starts on the next one above that has, else on
    the highest there is.

    Raises:
        InputError: a forced tier is unknown, a JSON schema is none, or no lane is left.
        ConfigurationError: a rule names something that decisions do not have.
    """
    if isinstance(decision.output, JsonOutput):
        _refuse_if_faulty(decision.output)
    start = starting_tier(decision, catalog)
    ladder = _ladder(decision, catalog)
    by_rank = sorted(catalog.tiers, key=lambda tier: catalog.tiers[tier].rank)
    usable = [tier for tier in by_rank if ladder[tier]]
    if not usable:
        raise InputError(_nothing_left(decision, catalog))
    rank = catalog.tiers[start.tier].rank
    climb = [start.tier, *(tier for tier in by_rank if catalog.tiers[tier].rank > rank)]
    hops: list[Hop] = []
    notes = [] if start.note is None else [start.note]
    for tier in climb:
        if len(hops) <= catalog.routing.max_climbs:
            notes += _missing(tier, ladder[tier], decision, catalog, absent)
            hops += _hops(tier, ladder[tier], hops, start, catalog)
    if not hops:
        hops = _hops(usable[-1], ladder[usable[-1]], [], start, catalog)
    return Plan(
        hops=tuple(hops[: catalog.routing.max_climbs + 1]),
        complexity=complexity(decision, catalog),
        notes=tuple(notes),
    )


def next_hop(
    plan_lanes: Sequence[str],
    current: int,
    catalog: Catalog,
    privacy: Privacy,
    closed: Container[str] = (),
) -> int | None:
    """The next hop of a plan that still can and may be taken, or ``None`` if there is none.

    A plan may be older than the catalog, so a hop is checked again before it is climbed.
    ``closed`` are lanes that must not be called now.
    """
    for hop in range(current + 1, len(plan_lanes)):
        lane = plan_lanes[hop]
        if lane in catalog.lanes and lane not in closed and _may_see(lane, catalog, privacy):
            return hop
    return None


def lower_plan(decision: Decision, whole: Plan, hop: int, catalog: Catalog) -> Plan | None:
    """The plan with the best unpaid lane that it does not have put after ``hop``, as its end.

    For a decision whose own lanes may not be called; ``None`` if there is no such lane.
    """
    ladder = _ladder(decision, catalog)
    for tier in sorted(catalog.tiers, key=lambda t: catalog.tiers[t].rank, reverse=True):
        for lane in ladder[tier]:
            if lane not in whole.lanes and not catalog.is_paid(lane):
                reason = f"stands in for {whole.lanes[hop]}, which may not be called"
                hops = (*whole.hops[: hop + 1], Hop(lane=lane, reason=reason))
                return whole.model_copy(update={"hops": hops})
    return None


def _refuse_if_faulty(output: JsonOutput) -> None:
    # No answer could ever pass, so no tier should be paid to find that out.
    fault = schema_fault(output.json_schema)
    if fault is not None:
        raise InputError(f"json_schema is no JSON Schema: {fault}; correct it and ask again")


def _may_see(lane: str, catalog: Catalog, privacy: Privacy) -> bool:
    return not privacy.stays_home or catalog.is_local(catalog.lanes[lane].model)


def _ladder(decision: Decision, catalog: Catalog) -> dict[str, list[str]]:
    """The lanes that the decision may use, by tier, in the order in which they are asked."""
    by_tier: dict[str, list[str]] = {tier: [] for tier in catalog.tiers}
    for name, lane in catalog.lanes.items():
        if _may_see(name, catalog, decision.preferences.privacy):
            by_tier[lane.tier].append(name)
    speciality = catalog.kind(decision.kind).speciality
    return {tier: _in_order(lanes, speciality, catalog) for tier, lanes in by_tier.items()}


def _in_order(lanes: Sequence[str], speciality: str, catalog: Catalog) -> list[str]:
    """The specialist, then the generalist.

    One local model of a sort is enough, for the same sort would fail alike; providers may be
    down one by one, so all of them follow.
    """

    def of(names: Sequence[str], sort: str) -> list[str]:
        return [name for name in names if catalog.lanes[name].speciality == sort]

    local = [name for name in lanes if catalog.is_local(catalog.lanes[name].model)]
    remote = [name for name in lanes if name not in local]
    own = [*of(local, speciality)[:1], *of(local, GENERAL)[:1]] or local[:1]
    paid = [*of(remote, speciality), *of(remote, GENERAL), *remote]
    return list(dict.fromkeys([*own, *paid]))


def _hops(
    tier: str, lanes: Sequence[str], before: Sequence[Hop], start: Start, catalog: Catalog
) -> list[Hop]:
    hops: list[Hop] = []
    for lane in lanes:
        if hops:
            reason = f"takes over if {hops[-1].lane} fails"
        elif before:
            reason = f"climbs here if {catalog.lanes[before[-1].lane].tier} fails the check"
        elif tier == start.tier:
            reason = start.reason
        else:
            reason = f"{start.reason}; {start.tier} cannot be used, so it starts on {tier}"
        if catalog.lanes[lane].speciality != GENERAL:
            reason += f"; specialist for {catalog.lanes[lane].speciality}"
        hops.append(Hop(lane=lane, reason=reason))
    return hops


def _missing(
    tier: str,
    lanes: Sequence[str],
    decision: Decision,
    catalog: Catalog,
    absent: Sequence[AbsentLane],
) -> list[str]:
    """What is not there of a tier that the plan comes by, in words."""
    gone = [lane for lane in absent if lane.tier == tier]
    if not lanes:
        if any(lane.tier == tier for lane in catalog.lanes.values()):
            privacy = decision.preferences.privacy.value
            return [f"{tier}: privacy {privacy} keeps this decision on the machine"]
        if not gone:
            return [f"{tier}: profile {catalog.profile} has no lane on it"]
        return [f"{tier}: {'; '.join(dict.fromkeys(lane.reason for lane in gone))}"]
    if all(catalog.is_local(catalog.lanes[lane].model) for lane in lanes):
        return []  # whichever local lane is left answers for the tier
    return [f"{tier} without {lane.lane}: {lane.reason}" for lane in gone]


def _nothing_left(decision: Decision, catalog: Catalog) -> str:
    if not catalog.lanes:
        return f"profile {catalog.profile!r} has no lane: add one, or choose another profile"
    return (
        f"privacy {decision.preferences.privacy.value!r} keeps this decision on the machine, but "
        f"profile {catalog.profile!r} has only cloud lanes: choose a profile with a local lane, "
        "or lower preferences.privacy"
    )
