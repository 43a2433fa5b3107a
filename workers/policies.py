"""Puts a learnt policy in force, and takes it back when what serves or its scores change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import InputError
from ledger import policies
from ledger.certificates import Scored, newest_attempt, stream
from ledger.policies import Kept
from ledger.tried import Made, made
from routing import drift
from routing.certify import Scope
from routing.guarantee import Goal
from routing.learnt import Learnt

AT_ONCE = 2_000
"""Attempts of a kind's stream that one look takes in."""
NEARLY_ALL = 0.95
"""Share of a kind's decisions that a lane was tried on, from which its scores are no selection."""


def adopt(
    engine: Engine, catalog: Catalog, run: str, learnt: Learnt, goal: Goal, labels: int, now: int
) -> Kept:
    """Put a policy in force that was learnt from ``labels`` rows of a run and meets the goal.

    Raises:
        InputError: what served in the run is not one thing a lane and kind, or serves no more.
    """
    seen, models = newest_attempt(engine), learnt.models
    rows = [one for one in made(engine, run) if one.kind in learnt.starts]
    scopes = _served([one for one in rows if one.lane in models], catalog)
    drifts = {kind: _reference(rows, kind, learnt) for kind in learnt.starts}
    kept = Kept(run, goal.target, goal.delta, labels, learnt.starts, scopes, now,
                {kind: state.as_json() for kind, state in drifts.items()}, seen)  # fmt: skip
    change = _change(engine, kept, catalog)
    if change:
        raise InputError(f"--run {run!r}: what it taught holds no more, {change}; take a newer run")
    return replace(kept, id=policies.store(engine, kept, learnt, now))


def watch(engine: Engine, catalog: Catalog, now: int) -> Kept | None:
    """Compare what serves, and the streams of scores, with the policy; it, if that made it lapse.

    Scores are compared on the lane where a kind begins: above it come those that the policy chose.
    """
    policies.drop_late(engine, now)
    newest, one = newest_attempt(engine), policies.in_force(engine)
    if one is None or newest == one.seen:
        return None
    reason = _change(engine, one, catalog)
    streams = {kind: _stream(engine, one, kind) for kind in one.starts}
    # What came since the newest was looked up is for the next look, and what one look cannot hold.
    full = [rows[-1].id for rows in streams.values() if len(rows) == AT_ONCE]
    seen = min([newest, *full])
    states = {
        kind: drift.watch(drift.from_json(dict(one.drift[kind])), _scores(one, rows, seen))
        for kind, rows in streams.items()
    }
    for kind, state in states.items():
        if state.drifted:
            reason = reason or f"the scores of {kind} have drifted: {drift.means(state)}"
    if reason:
        return one if policies.lapse(engine, one, reason, now) else None
    drifts = {kind: state.as_json() for kind, state in states.items()}
    policies.note_drift(engine, one, drifts, seen)
    return None


def _served(rows: Sequence[Made], catalog: Catalog) -> tuple[Scope, ...]:
    """What served each kind on each lane: one model and fingerprint, in any number of templates."""
    found: dict[tuple[str, str], set[Scope]] = defaultdict(set)
    for row in rows:
        adapter = _adapter(row.kind, row.model, catalog)
        found[row.kind, row.lane].add(
            Scope(row.kind, row.lane, row.model, row.fingerprint, row.template, adapter)
        )
    for (kind, lane), scopes in found.items():
        weights = sorted({(scope.model, scope.fingerprint) for scope in scopes})
        if len(weights) > 1:
            raise InputError(
                f"{kind} was answered on {lane} by more than one model in this run: "
                f"{', '.join('/'.join(one) for one in weights)}; take a run with one"
            )
        if weights[0][0] != catalog.lanes[lane].model:
            raise InputError(
                f"{lane} was {weights[0][0]} in this run and is {catalog.lanes[lane].model} in "
                f"profile {catalog.profile!r}: name the run's own, or take a newer run"
            )
    every = (scope for scopes in found.values() for scope in scopes)
    return tuple(sorted(every, key=lambda s: (s.kind, s.lane, s.template)))


def _reference(rows: Sequence[Made], kind: str, learnt: Learnt) -> drift.Watch:
    """The watch on a kind, with the run's scores to compare with.

    Where the run asked the lane only now and then, as one that is climbed to, its scores are not
    those of all decisions; those to come are then compared with one another alone.
    """
    own = [row for row in rows if row.kind == kind and not row.audits]
    here = [row for row in own if row.lane == learnt.starts[kind]]
    decisions = len({row.decision_id for row in own})
    unselected = len({row.decision_id for row in here}) >= NEARLY_ALL * decisions
    scores = [row.p for row in here if row.sound and row.p is not None] if unselected else []
    return drift.begin(scores, alpha=drift.ALPHA / len(learnt.starts))


def _change(engine: Engine, one: Kept, catalog: Catalog) -> str:
    """What changed of what serves, if the newest attempt of a kind on a lane shows it."""
    for (kind, lane), scopes in _by_lane(one.served).items():
        adapter = _adapter(kind, scopes[0].model, catalog)
        for newest in stream(engine, kind, lane, adapter, after="", limit=1, last=True):
            name = _name(newest.scope)
            same = [scope for scope in scopes if _name(scope) == name]
            if same and newest.scope not in same:  # else the kind is asked in several ways at once
                return f"{kind} on {lane}: {same[0].change(newest.scope)}"
    return ""


def _by_lane(served: Sequence[Scope]) -> Mapping[tuple[str, str], list[Scope]]:
    found: dict[tuple[str, str], list[Scope]] = defaultdict(list)
    for scope in served:
        found[scope.kind, scope.lane].append(scope)
    return found


def _stream(engine: Engine, one: Kept, kind: str) -> list[Scored]:
    lane = one.starts[kind]
    adapter = next((s.adapter for s in one.served if (s.kind, s.lane) == (kind, lane)), "")
    return stream(engine, kind, lane, adapter, after=one.seen, limit=AT_ONCE)


def _scores(one: Kept, rows: Sequence[Scored], seen: str) -> list[float]:
    mine = (row for row in rows if row.id <= seen and row.scope in one.served)
    return [row.p for row in mine if row.sound and row.p is not None]


def _adapter(kind: str, model: str, catalog: Catalog) -> str:
    wanted = catalog.kind(kind).adapter or ""
    known = catalog.models.get(model)
    return wanted if known is not None and wanted in known.adapters else ""


def _name(scope: Scope) -> str:
    return scope.template.partition("@")[0]
