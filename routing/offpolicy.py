"""What a run shows of a policy that it did not follow: rows in which every lane was tried.

A decision that was accepted early was not tried above, and to leave it out would leave the easy
ones out. Where chance decided that it was tried above all the same (an audit), it stands for all
those that chance left out: it counts by the inverse of that chance (Horvitz and Thompson 1952).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from routing.attempts import Attempts, Question, Tried, tabulate

FEWEST = 100
"""Complete rows, and attempts of a lane, below which nothing is said."""


@dataclass(frozen=True)
class Seen:
    """A decision with its attempts by lane; ``propensity`` is the probability with which it came
    to be tried on all of them: 1 where it climbed, that of the audit where it was audited."""

    kind: str
    tried: Mapping[str, Tried]
    propensity: float = 1.0


@dataclass(frozen=True)
class Logged:
    """Rows in which all ``lanes`` were tried; ``unseen`` decisions were not, and ``covered`` is
    the share of all decisions that the rows stand for by their weights.

    ``attempts`` is ``None`` where rows or lanes are too few; ``lanes`` then has how often each was
    tried.
    """

    attempts: Attempts | None
    lanes: Mapping[str, int]
    complete: int
    unseen: int
    covered: float


def logged(seen: Sequence[Seen], order: Sequence[str]) -> Logged:
    """The rows that can be scored, with lanes in ``order``, the cheapest first.

    Lanes tried fewer than :data:`FEWEST` times are left aside.
    """
    counts = Counter(lane for one in seen for lane in one.tried)
    lanes = [lane for lane in order if counts[lane] >= FEWEST]
    whole = [one for one in seen if lanes and all(lane in one.tried for lane in lanes)]
    rows = [
        Question(one.kind, tuple(one.tried[lane] for lane in lanes), 1 / one.propensity)
        for one in whole
    ]
    enough = len(lanes) > 1 and len(rows) >= FEWEST
    stand_for = sum(row.weight for row in rows)
    return Logged(
        tabulate(lanes, rows) if enough else None,
        {lane: counts[lane] for lane in order if counts[lane]},
        len(rows),
        len(seen) - len(rows),
        min(1.0, stand_for / len(seen)) if seen else 0.0,
    )
