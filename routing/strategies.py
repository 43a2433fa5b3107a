"""Compares lanes by cost, latency, quality, privacy and complexity, and picks a start."""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

from config.catalog import Catalog
from config.strategies import Factors, Strategy
from routing.adapters import adapter_of
from routing.decision import ChoiceOutput, Complexity, Decision, Privacy
from routing.digest import NANOS, Digest, Ladder, LaneFacts, digest_of
from routing.wishes import Wishes

CHARS_PER_TOKEN = 4
LABEL_TOKENS = 3
"""Of the answer to a choice."""
NEEDS = {
    Complexity.SIMPLE: 0.5,
    Complexity.MODERATE: 0.7,
    Complexity.COMPLEX: 0.85,
    Complexity.EXPERT: 0.95,
}
"""The quality from which a lane is wholly up to a class."""
CLOUD_PRIVACY = {Privacy.LOW: 1.0, Privacy.MEDIUM: 0.5}
"""What the privacy of a cloud lane is worth; stricter levels have no such lane."""
HASTE = {"low": 0.5, "medium": 1.0, "high": 2.0}
"""By how much urgency multiplies the weight of latency."""


class Figures(NamedTuple):
    """What a lane is expected to give for one decision."""

    lane: LaneFacts
    cost_nanos: int
    """Billionths of a dollar; amortised where the lane is local, with the switch of adapters."""
    latency_ms: float


class Parts(NamedTuple):
    """A number for each factor; as weights they sum to 1."""

    complexity: float
    cost: float
    latency: float
    quality: float
    privacy: float


class Scale(NamedTuple):
    """What the factors of a decision's lanes are measured by."""

    dearest: int
    slowest: float
    need: float
    cloud_privacy: float
    weights: Parts


class Choice(NamedTuple):
    """The tier on which a strategy starts, why, and the order of all lanes."""

    tier: str
    reason: str
    ladder: Ladder


def within_bounds(
    decision: Decision, wishes: Wishes, ladder: Ladder, catalog: Catalog
) -> tuple[Ladder, list[str]]:
    """The ladder without the lanes that are too slow or not good enough, and why they are out."""
    digest, kept, notes = digest_of(catalog), dict[str, tuple[str, ...]](), list[str]()
    for tier, lanes in ladder.items():
        faults = {lane: _fault(decision, wishes, digest.lanes[lane], catalog) for lane in lanes}
        kept[tier] = tuple(lane for lane in lanes if not faults[lane])
        notes += [f"{lane} is left out: {fault}" for lane, fault in faults.items() if fault]
    return kept, notes


def choose(
    decision: Decision, wishes: Wishes, klass: Complexity, ladder: Ladder, catalog: Catalog
) -> Choice:
    """The start by strategy. Providers of a tier follow one another from the best to the worst.

    ``ladder`` has a lane on at least one tier, and the strategy is not ``local_first``.
    """
    digest = digest_of(catalog)
    every = {
        name: figures(decision, digest.lanes[name], catalog)
        for lanes in ladder.values()
        for name in lanes
    }
    scale = _scale(list(every.values()), wishes, decision, klass)
    marks = {name: _mark(one, wishes.strategy, scale) for name, one in every.items()}
    ordered = {tier: _best_first(lanes, marks, digest) for tier, lanes in ladder.items()}
    # Of equals the first, which stands on the cheapest tier.
    best = max((lanes[0] for lanes in ordered.values() if lanes), key=marks.__getitem__)
    return Choice(every[best].lane.tier, _reason(every[best], wishes.strategy, scale), ordered)


def figures(decision: Decision, lane: LaneFacts, catalog: Catalog) -> Figures:
    """What a call on a lane is expected to cost (billionths of a dollar) and to take (ms)."""
    tokens_in, tokens_out = expected_tokens(decision, lane)
    nanos = tokens_in * lane.nanos_in + tokens_out * lane.nanos_out
    switch = 0
    if lane.adapters and adapter_of(decision, catalog, lane.name):
        switch = int(catalog.routing.local_cost.usd_per_adapter_switch * 1_000_000 * NANOS)
    latency = lane.latency_ms if lane.ms_per_token is None else tokens_out * lane.ms_per_token
    return Figures(lane, nanos + switch, latency)


def expected_tokens(decision: Decision, lane: LaneFacts) -> tuple[int, int]:
    """Tokens in and out: the output's limit out, and in what is stated, else four characters
    a token."""
    output = decision.output
    out = LABEL_TOKENS if isinstance(output, ChoiceOutput) else output.max_tokens or lane.max_tokens
    stated = decision.signals.estimated_tokens
    if stated is not None:
        out = min(out, stated)
        return stated - out, out
    return (len(decision.system) + len(decision.prompt)) // CHARS_PER_TOKEN + 1, out


def factors(one: Figures, scale: Scale) -> Parts:
    """The factors of a lane, each from 0 to 1; cost and latency against the worst lane's."""
    lane = one.lane
    fit = lane.quality / scale.need
    return Parts(
        fit if fit < 1 else 1.0,
        1 - one.cost_nanos / scale.dearest if scale.dearest else 1.0,
        1 - one.latency_ms / scale.slowest if scale.slowest else 1.0,
        lane.quality,
        1.0 if lane.local else scale.cloud_privacy,
    )


def _scale(
    every: Sequence[Figures], wishes: Wishes, decision: Decision, klass: Complexity
) -> Scale:
    return Scale(
        dearest=max([one.cost_nanos for one in every]),
        slowest=max([one.latency_ms for one in every]),
        need=NEEDS[klass],
        cloud_privacy=CLOUD_PRIVACY.get(wishes.privacy, 0.0),
        weights=_shares(wishes.weights or Factors(quality=1), HASTE[decision.signals.urgency]),
    )


def _shares(weights: Factors, haste: float) -> Parts:
    """Weights that sum to 1."""
    given = Parts(
        weights.complexity, weights.cost, weights.latency * haste, weights.quality, weights.privacy
    )
    total = sum(given)
    return Parts(*[weight / total for weight in given])


def _score(one: Figures, scale: Scale) -> float:
    """The weighted mean of a lane's factors."""
    return sum(map(mul, scale.weights, factors(one, scale)), 0.0)


def _mark(one: Figures, strategy: Strategy, scale: Scale) -> tuple[float, float]:
    """By what lanes are compared, the higher the better; the second counts between equals."""
    if strategy is Strategy.COST:
        return -one.cost_nanos, one.lane.quality
    if strategy is Strategy.QUALITY:
        return one.lane.quality, -one.cost_nanos
    return _score(one, scale), -one.cost_nanos


def _best_first(
    lanes: tuple[str, ...], marks: dict[str, tuple[float, float]], digest: Digest
) -> tuple[str, ...]:
    """Local lanes as they are, specialist first; then the providers by their marks."""
    if len(lanes) < 2:
        return lanes
    local = [lane for lane in lanes if digest.lanes[lane].local]
    remote = [lane for lane in lanes if not digest.lanes[lane].local]
    return (*local, *sorted(remote, key=marks.__getitem__, reverse=True))


def _reason(best: Figures, strategy: Strategy, scale: Scale) -> str:
    name = best.lane.name
    if strategy is Strategy.COST:
        return f"strategy cost: {name} costs least, about ${best.cost_nanos / 1e9:.6f}"
    if strategy is Strategy.QUALITY:
        return f"strategy quality: {name} is expected to do best, {best.lane.quality:.2f}"
    parts = zip(Parts._fields, factors(best, scale), scale.weights, strict=True)
    shown = ", ".join(f"{factor} {part:.2f}" for factor, part, weight in parts if weight)
    return f"strategy hybrid: {name} scores best with {_score(best, scale):.2f} ({shown})"


def _fault(decision: Decision, wishes: Wishes, lane: LaneFacts, catalog: Catalog) -> str:
    least, longest = wishes.min_quality, wishes.max_latency_ms
    if least is not None and lane.quality < least:
        return f"quality {lane.quality:.2f} is expected of it, below min_quality {least:.2f}"
    if longest is not None:
        latency = figures(decision, lane, catalog).latency_ms
        if latency > longest:
            return f"it is expected to take {latency:,.0f} ms, over max_latency_ms {longest:,}"
    return ""
