"""Where a decision goes: the lanes it may climb, in order, each with its reason in words."""

from __future__ import annotations

from collections.abc import Container, Sequence

from config.catalog import Catalog
from config.errors import InputError
from config.load import AbsentLane
from config.strategies import Strategy
from routing.complexity import complexity
from routing.decision import Complexity, Decision, Hop, JsonOutput, Plan, Privacy
from routing.digest import GENERAL, Digest, Ladder, digest_of
from routing.learned import Learned, pass_over
from routing.live import Live, begin
from routing.specialists import Specialist, specialist_of
from routing.start import Start, starting_tier
from routing.strategies import choose, within_bounds
from routing.structured import schema_fault
from routing.wishes import Wishes, privacy_of, wishes_of


def plan(
    decision: Decision,
    catalog: Catalog,
    absent: Sequence[AbsentLane],
    learned: Learned | None = None,
    live: Live | None = None,
) -> Plan:
    """The lanes of a decision.

    ``catalog`` holds the lanes that can be used here, ``absent`` those that cannot. Privacy is
    a filter before everything else, then come the bounds on quality and latency. The plan starts
    where :func:`starting_tier` says, or, where that does not bind, the strategy; it climbs tier
    by tier. Where that tier has no lane, it starts on the next one above that has, else on the
    highest there is. Where neither binds nor a strategy chose, it starts on the lane of the policy
    in force (``live``) if that is among them; without a policy for the kind, lanes are passed over
    that were not worth their cost by what was ``learned``.

    Raises:
        InputError: a forced tier, lane, specialist or preset is unknown, a forced lane may not
            see the decision, no lane of the plan has the wanted adapter, a JSON schema is none,
            or no lane is left.
        ConfigurationError: a rule names something that decisions do not have.
    """
    if isinstance(decision.output, JsonOutput):
        _refuse_if_faulty(decision.output)
    digest, wishes = digest_of(catalog), wishes_of(decision, catalog)
    klass, specialist = complexity(decision, catalog), specialist_of(decision, catalog)
    ladder, notes = _allowed(decision, wishes, specialist, catalog)
    start, ladder = _start(decision, wishes, klass, specialist, ladder, catalog)
    if decision.preferences.force_lane is not None:
        ladder = _lane_first(decision.preferences.force_lane, start, ladder, wishes, digest)
    if start.note is not None:
        notes.insert(0, start.note)
    if decision.preferences.weights is not None and wishes.strategy is not Strategy.HYBRID:
        notes.append(f"weights are for strategy hybrid, and this is {wishes.strategy.value}")
    hops = _climb(start, specialist, ladder, digest, catalog.routing.max_climbs)
    notes += _passed_by(start, hops, ladder, wishes, catalog, absent)
    if not start.binding and wishes.strategy is Strategy.LOCAL_FIRST:
        hops, more = _by_experience(hops, decision, catalog, learned, live)
        notes += more
    found = Plan(hops=tuple(hops), complexity=klass, notes=tuple(notes))
    if decision.preferences.adapter:
        _refuse_unknown_adapter(decision.preferences.adapter, found, digest, catalog)
    return found


def next_hop(
    plan_lanes: Sequence[str],
    current: int,
    catalog: Catalog,
    privacy: Privacy,
    closed: Container[str] = (),
    *,
    only: str | None = None,
) -> int | None:
    """The next hop of a plan that still can and may be taken, or ``None`` if there is none.

    A plan may be older than the catalog, so a hop is checked again before it is climbed.
    ``closed`` are lanes that must not be called now. With ``only`` no other lane will do, and hops
    before it are passed.
    """
    for hop in range(current + 1, len(plan_lanes)):
        lane = plan_lanes[hop]
        if only is not None and lane != only:
            continue
        if lane in catalog.lanes and lane not in closed and may_see(lane, catalog, privacy):
            return hop
    return None


def lower_plan(decision: Decision, whole: Plan, hop: int, catalog: Catalog) -> Plan | None:
    """The plan with the best unpaid lane that it does not have put after ``hop``, as its end.

    For a decision whose own lanes may not be called; ``None`` if there is no such lane.
    """
    digest = digest_of(catalog)
    try:
        speciality = specialist_of(decision, catalog).name
    except InputError:  # the catalog is newer than the decision and knows it no more
        speciality = GENERAL
    ladder = digest.ladder(privacy_of(decision, catalog), speciality)
    for tier in reversed(digest.tiers):
        for lane in ladder[tier]:
            if lane not in whole.lanes and not catalog.is_paid(lane):
                reason = f"stands in for {whole.lanes[hop]}, which may not be called"
                hops = (*whole.hops[: hop + 1], Hop(lane=lane, reason=reason))
                return whole.model_copy(update={"hops": hops})
    return None


def may_see(lane: str, catalog: Catalog, privacy: Privacy) -> bool:
    """Whether a lane of the catalog may read a decision of that privacy."""
    return digest_of(catalog).may_see(lane, privacy)


def _allowed(
    decision: Decision, wishes: Wishes, specialist: Specialist, catalog: Catalog
) -> tuple[Ladder, list[str]]:
    """The lanes that privacy and the bounds leave, by tier, and what the bounds left out."""
    ladder, notes = digest_of(catalog).ladder(wishes.privacy, specialist.name), list[str]()
    if wishes.min_quality is not None or wishes.max_latency_ms is not None:
        ladder, notes = within_bounds(decision, wishes, ladder, catalog)
    if not any(ladder.values()):
        raise InputError(_nothing_left(wishes, notes, catalog))
    return ladder, notes


def _start(
    decision: Decision,
    wishes: Wishes,
    klass: Complexity,
    specialist: Specialist,
    ladder: Ladder,
    catalog: Catalog,
) -> tuple[Start, Ladder]:
    """Where it starts, and the lanes in the order of the strategy."""
    start = starting_tier(decision, catalog, klass, specialist, ladder)
    if wishes.strategy is Strategy.LOCAL_FIRST:
        return start, ladder
    choice = choose(decision, wishes, klass, ladder, catalog)
    if not start.binding:
        start = Start(choice.tier, choice.reason, start.note)
    return start, choice.ladder


def _lane_first(lane: str, start: Start, ladder: Ladder, wishes: Wishes, digest: Digest) -> Ladder:
    """The lanes with the forced one before the others of its tier, unless a rule overruled it."""
    tier = digest.lanes[lane].tier
    if tier != start.tier:
        return ladder
    if not digest.may_see(lane, wishes.privacy):
        raise InputError(
            f"privacy {wishes.privacy.value!r} keeps this decision on the machine, which lane "
            f"{lane!r} is not: force a local lane, or lower preferences.privacy"
        )
    return {**ladder, tier: (lane, *(other for other in ladder[tier] if other != lane))}


def _by_experience(
    hops: list[Hop],
    decision: Decision,
    catalog: Catalog,
    learned: Learned | None,
    live: Live | None,
) -> tuple[list[Hop], list[str]]:
    begun = None if live is None else begin(hops, decision, catalog, live)
    if begun is not None:
        return begun
    return (hops, []) if learned is None else pass_over(hops, decision, catalog, learned)


def _refuse_if_faulty(output: JsonOutput) -> None:
    # No answer could ever pass, so no tier should be paid to find that out.
    fault = schema_fault(output.json_schema)
    if fault is not None:
        raise InputError(f"json_schema is no JSON Schema: {fault}; correct it and ask again")


def _climb(
    start: Start, specialist: Specialist, ladder: Ladder, digest: Digest, max_climbs: int
) -> list[Hop]:
    hops: list[Hop] = []
    for tier in digest.upwards[start.tier]:
        if len(hops) <= max_climbs:
            hops += _hops(tier, ladder[tier], hops, start, specialist, digest)
    if not hops:
        last = [tier for tier in digest.tiers if ladder[tier]][-1]
        hops = _hops(last, ladder[last], [], start, specialist, digest)
    return hops[: max_climbs + 1]


def _hops(
    tier: str,
    lanes: Sequence[str],
    before: Sequence[Hop],
    start: Start,
    specialist: Specialist,
    digest: Digest,
) -> list[Hop]:
    hops: list[Hop] = []
    for lane in lanes:
        if hops:
            reason = f"takes over if {hops[-1].lane} fails"
        elif before:
            reason = f"climbs here if {digest.lanes[before[-1].lane].tier} fails the check"
        elif tier == start.tier:
            reason = start.reason
        else:
            reason = f"{start.reason}; {start.tier} cannot be used, so it starts on {tier}"
        sort = digest.lanes[lane].speciality
        if sort == specialist.name and specialist.reason and specialist.reason not in reason:
            reason += f"; {specialist.reason}"
        if sort != GENERAL:
            reason += f"; specialist for {sort}"
        hops.append(Hop(lane=lane, reason=reason))
    return hops


def _passed_by(
    start: Start,
    hops: Sequence[Hop],
    ladder: Ladder,
    wishes: Wishes,
    catalog: Catalog,
    absent: Sequence[AbsentLane],
) -> list[str]:
    """What is missing of the tiers that the plan comes by, until it is long enough."""
    notes: list[str] = []
    digest, count = digest_of(catalog), 0
    for tier in digest.upwards[start.tier]:
        if count <= catalog.routing.max_climbs:
            notes += _missing(tier, ladder[tier], wishes.privacy, catalog, absent)
            count += len(ladder[tier])
    return notes


def _missing(
    tier: str,
    lanes: Sequence[str],
    privacy: Privacy,
    catalog: Catalog,
    absent: Sequence[AbsentLane],
) -> list[str]:
    """What is not there of a tier that the plan comes by, in words."""
    gone = [lane for lane in absent if lane.tier == tier]
    digest = digest_of(catalog)
    if not lanes:
        here = [facts.name for facts in digest.lanes.values() if facts.tier == tier]
        if any(digest.may_see(lane, privacy) for lane in here):
            return []  # left out by a bound, which has its own note
        if here:
            return [f"{tier}: privacy {privacy.value} keeps this decision on the machine"]
        if not gone:
            return [f"{tier}: profile {catalog.profile} has no lane on it"]
        return [f"{tier}: {'; '.join(dict.fromkeys(lane.reason for lane in gone))}"]
    # Whichever local lane is left answers for the tier.
    local = all(digest.lanes[lane].local for lane in lanes)
    told = [lane for lane in gone if lane.down or not local]
    return [f"{tier} without {lane.lane}: {lane.reason}" for lane in told]


def _refuse_unknown_adapter(adapter: str, found: Plan, digest: Digest, catalog: Catalog) -> None:
    if any(adapter in digest.lanes[lane].adapters for lane in found.lanes):
        return
    known = sorted({name for lane in found.lanes for name in digest.lanes[lane].adapters})
    choices = f"choose one of {', '.join(known)}" if known else "drop it, they have none"
    raise InputError(
        f"adapter {adapter!r} is on none of the lanes that this decision may climb "
        f"({', '.join(found.lanes)}) in profile {catalog.profile!r}: {choices}"
    )


def _nothing_left(wishes: Wishes, left_out: Sequence[str], catalog: Catalog) -> str:
    if not catalog.lanes:
        return f"profile {catalog.profile!r} has no lane: add one, or choose another profile"
    if left_out:
        return (
            f"no lane of profile {catalog.profile!r} is left: {'; '.join(left_out)}; "
            "lower min_quality or raise max_latency_ms"
        )
    return (
        f"privacy {wishes.privacy.value!r} keeps this decision on the machine, but "
        f"profile {catalog.profile!r} has only cloud lanes: choose a profile with a local lane, "
        "or lower preferences.privacy"
    )
