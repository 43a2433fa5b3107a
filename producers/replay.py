"""Recorded decisions asked again under another configuration, and what that changes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from pydantic import BaseModel

from config.catalog import Catalog, OutputType
from config.errors import InputError
from config.load import AbsentLane
from ledger.money import dollars
from ledger.recorded import Pair, Told
from routing.decision import CacheScope, ChoiceOutput, Decision, Output
from routing.policy import plan
from routing.wishes import as_private_as_wished

MODE = "replay"
NO_TIER = "none"


class Unfit(BaseModel):
    """A decision that the other configuration cannot ask, and why."""

    key: str
    kind: str
    reason: str


class Said(BaseModel):
    """What one of the runs said."""

    status: str
    answer: str
    lane: str | None


class Changed(BaseModel):
    """A decision whose answer or status is another one now."""

    key: str
    kind: str
    expected: str | None
    before: Said
    after: Said


class Side(BaseModel):
    """One of the runs over the decisions that both settled.

    Money in dollars, times in milliseconds; ``right`` counts among those with a known answer.
    """

    run: str
    profile: str
    by_status: dict[str, int]
    by_tier: dict[str, int]
    right: int
    accuracy: float | None
    cost_usd: float
    model_ms: float
    settled_ms_p50: float | None
    settled_ms_p95: float | None


class KindChange(BaseModel):
    """How the answers of one kind compare."""

    same: int = 0
    changed: int = 0


class Comparison(BaseModel):
    """What a replay changed."""

    compared: int
    same: int
    changed: int
    """Other answers; another status alone is not counted."""
    known: int
    """Decisions whose right answer is known."""
    by_kind: dict[str, KindChange]
    by_status: dict[str, int]
    """Decisions by both their statuses, ``accepted -> degraded`` for one."""
    before: Side
    after: Side
    unfit: list[Unfit]
    open: int
    changes: list[Changed]


def as_replayed(decision: Decision, tier: str | None) -> Decision:
    """The decision as a replay asks it: anew, as private as it was, and on ``tier`` if one is
    wished. An answer of the cache would be the old configuration's; and who paid then has not
    asked now."""
    wishes: dict[str, object] = {"cache": CacheScope.OFF, "payer": None}
    if tier is not None:
        wishes |= {"force_tier": tier, "force_lane": None}
    preferences = decision.preferences.model_copy(update=wishes)
    return decision.model_copy(update={"preferences": preferences})


def why_unfit(
    decision: Decision, catalog: Catalog, absent: Sequence[AbsentLane], before: Catalog | None
) -> str | None:
    """Why a configuration cannot ask a decision, or ``None`` if it can.

    ``before`` is the catalog of the recorded run, where that is still there: a kind that neither
    knows is as unknown as it was.
    """
    name = decision.kind
    if name not in catalog.kinds and (before is None or name in before.kinds):
        return f"kind {name!r} is not in profile {catalog.profile!r}"
    labels = catalog.kind(name).labels
    if isinstance(decision.output, ChoiceOutput) and labels:
        strange = [label for label in decision.output.labels if label not in labels]
        if strange:
            return f"label {strange[0]!r} is none of kind {name!r} in profile {catalog.profile!r}"
    try:
        plan(as_private_as_wished(decision, catalog), catalog, absent)
    except InputError as fault:
        return str(fault)
    return None


def compare(
    found: Iterable[Pair],
    *,
    runs: tuple[str, str],
    profiles: tuple[str, str],
    catalogs: tuple[Catalog | None, Catalog],
    unfit: Sequence[Unfit] = (),
    still_open: int = 0,
) -> Comparison:
    """Lay two runs side by side; the first of each two is the recorded one."""
    kinds: dict[str, KindChange] = defaultdict(KindChange)
    statuses: Counter[str] = Counter()
    sides = tuple(
        _Side(run, profile, catalog)
        for run, profile, catalog in zip(runs, profiles, catalogs, strict=True)
    )
    changes: list[Changed] = []
    known = compared = 0
    for pair in found:
        compared += 1
        known += pair.expected is not None
        sides[0].add(pair.before, pair)
        sides[1].add(pair.after, pair)
        statuses[f"{pair.before.status} -> {pair.after.status}"] += 1
        same = _equal(pair.output, pair.before.answer, pair.after.answer)
        kinds[pair.before.kind].same += same
        kinds[pair.before.kind].changed += not same
        if not same or pair.before.status != pair.after.status:
            changes.append(_changed(pair))
    return Comparison(
        compared=compared,
        same=sum(one.same for one in kinds.values()),
        changed=sum(one.changed for one in kinds.values()),
        known=known,
        by_kind=dict(sorted(kinds.items())),
        by_status=dict(statuses.most_common()),
        before=sides[0].figures(known),
        after=sides[1].figures(known),
        unfit=list(unfit),
        open=still_open,
        changes=changes,
    )


class _Side:
    """Adds up one run."""

    def __init__(self, run: str, profile: str, catalog: Catalog | None) -> None:
        self._run, self._profile = run, profile
        self._lanes = {} if catalog is None else catalog.lanes
        self._statuses: Counter[str] = Counter()
        self._tiers: Counter[str] = Counter()
        self._right = self._cost = self._model_us = 0
        self._took: list[int] = []

    def add(self, told: Told, pair: Pair) -> None:
        lane = self._lanes.get(told.lane or "")
        # Of a profile that is gone only the lane's name is left.
        self._tiers[lane.tier if lane is not None else told.lane or NO_TIER] += 1
        self._statuses[told.status] += 1
        if pair.expected is not None:
            self._right += _equal(pair.output, told.answer, pair.expected)
        self._cost += told.cost_micros
        self._model_us += told.inference_us
        self._took.append(told.took_us)

    def figures(self, known: int) -> Side:
        took = sorted(self._took)
        return Side(
            run=self._run,
            profile=self._profile,
            by_status=dict(self._statuses.most_common()),
            by_tier=dict(sorted(self._tiers.items())),
            right=self._right,
            accuracy=self._right / known if known else None,
            cost_usd=dollars(self._cost),
            model_ms=self._model_us / 1000,
            settled_ms_p50=_quantile(took, 50),
            settled_ms_p95=_quantile(took, 95),
        )


def _changed(pair: Pair) -> Changed:
    def said(told: Told) -> Said:
        values = asdict(told)
        return Said(**{name: values[name] for name in Said.model_fields})

    before, after = said(pair.before), said(pair.after)
    return Changed(
        key=pair.before.key, kind=pair.before.kind, expected=pair.expected,
        before=before, after=after,
    )  # fmt: skip


def _equal(output: Output, one: str, other: str) -> bool:
    """Whether two answers are the same; of JSON the values count."""
    if one == other or output.type is not OutputType.JSON:
        return one.strip() == other.strip()
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def _quantile(ordered: Sequence[int], percent: int) -> float | None:
    """The nearest-rank quantile, in milliseconds."""
    if not ordered:
        return None
    return ordered[(len(ordered) * percent + 99) // 100 - 1] / 1000
