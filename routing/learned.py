"""Passes over lanes of a plan whose answers were, by experience, not worth their cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from config.catalog import Catalog
from routing.decision import Decision, Hop
from routing.history import Choice, Count, Success, worth
from routing.history import learn as shares_of

FEWEST = 30
"""Answers to a kind below which a lane is not passed over, whatever others fared like."""
MICRO = 1_000_000


@dataclass(frozen=True)
class Fared:
    """A lane's answers to a kind: how many were judged, how many good, and what all took."""

    kind: str
    lane: str
    tried: int
    good: int
    cost_micros: int
    inference_us: int


@dataclass(frozen=True)
class Learned:
    """Expected shares of good answers, and what is known of each kind on each lane."""

    success: Success
    tried: Mapping[tuple[str, str], Fared]
    _known: dict[tuple[str, tuple[str, ...]], dict[str, str]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Lanes passed over, each with its note, by kind and lanes: the same for all such plans."""


def learn(rows: Sequence[Fared], catalog: Catalog) -> Learned:
    """What the counts teach; lanes that the catalog does not have teach nothing."""
    here = [row for row in rows if row.lane in catalog.lanes]
    counts = [
        Count(r.kind, r.lane, catalog.kind(r.kind).group, catalog.lanes[r.lane].tier, r.tried,
              r.good)
        for r in here
    ]  # fmt: skip
    return Learned(shares_of(counts), {(r.kind, r.lane): r for r in here})


def pass_over(
    hops: Sequence[Hop], decision: Decision, catalog: Catalog, learned: Learned
) -> tuple[list[Hop], list[str]]:
    """The hops that are worth their cost, and a note on each that is passed over.

    A call costs what the provider took for it and what its time is worth. The last hop stays in
    any case, and so does every lane of which little is known. Nothing is added, so that no filter
    before it is undone. Kinds that accept by certificate alone keep every lane: one that has none
    yet passes nothing, and would never be labelled if it were passed over for that.
    """
    if catalog.kind(decision.kind).certified:
        return list(hops), []
    lanes = tuple(hop.lane for hop in hops)
    gone = learned._known.get((decision.kind, lanes))
    if gone is None:
        gone = _not_worth(lanes, decision.kind, catalog, learned)
        learned._known[decision.kind, lanes] = gone
    left, notes = [hop for hop in hops if hop.lane not in gone], list(gone.values())
    if left[0] is not hops[0]:
        left[0] = Hop(lane=left[0].lane, reason=f"starts here: {notes[0]}")
    return left, notes


def _not_worth(
    lanes: Sequence[str], kind: str, catalog: Catalog, learned: Learned
) -> dict[str, str]:
    choices = [c for c in (_choice(lane, kind, catalog, learned) for lane in lanes) if c]
    if len(choices) < 2:
        return {}
    kept = {choice.lane for choice in worth(choices, float(catalog.routing.answer_usd))}
    kept.add(lanes[-1])
    return {c.lane: _note(c, kind, learned) for c in choices if c.lane not in kept}


def _choice(name: str, kind: str, catalog: Catalog, learned: Learned) -> Choice | None:
    known = learned.tried.get((kind, name))
    if known is None or known.tried < FEWEST:
        return None
    lane = catalog.lanes[name]
    success = learned.success.of(kind, name, catalog.kind(kind).group, lane.tier)
    seconds = known.inference_us / known.tried / MICRO
    dollars = known.cost_micros / known.tried / MICRO
    cost = dollars + seconds * float(catalog.routing.second_usd)
    return None if success is None else Choice(name, success, cost)


def _note(choice: Choice, kind: str, learned: Learned) -> str:
    known = learned.tried[kind, choice.lane]
    return (
        f"{choice.lane} is passed over: {known.good} of its last {known.tried} answers to {kind} "
        f"were good, which is not worth ${choice.cost:.6f} a try"
    )
