"""Certifies lanes from labelled history, and takes certificates back when the stream drifts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from config.catalog import Catalog, OutputType
from ledger import certificates
from ledger.calibrations import Subject, calibrated_at
from ledger.certificates import Kept, Scored, Standing
from ledger.labels import Labelled, labelled
from routing import drift
from routing.audit import is_top
from routing.certify import Certificate, Judged, Promise, Scope
from routing.certify import certify as fit

AT_ONCE = 2_000
"""Attempts of the stream that one look takes in."""


@dataclass(frozen=True)
class Examined:
    """What came of an attempt to certify a scope.

    ``labels`` were at hand, ``needed`` are wanted for an attempt. Without ``made`` none was
    undertaken; a refusal says why.
    """

    scope: Scope
    labels: int
    needed: int
    made: Kept | None = None


def certify(
    engine: Engine,
    catalog: Catalog,
    now: int,
    *,
    kind: str | None = None,
    again: bool = False,
    dry: bool = False,
) -> list[Examined]:
    """Try every lane and kind that has labels enough; keep what comes of it.

    Enough are twice those of the last attempt, also where that brought a certificate; if the
    profile promises something else by now, its least number. With ``again`` all kinds are tried,
    and any new label is enough. With ``dry`` nothing is kept.
    """
    known = certificates.history(engine)
    found = []
    for scope, rows in _by_scope(catalog, labelled(engine, kind=kind), every=again).items():
        found.append(_examine(engine, catalog, scope, rows, known, now, again))
        if (made := found[-1].made) is not None:
            known.insert(0, made)
    if not dry:
        certificates.store(engine, [one.made for one in found if one.made is not None], now)
    return found


def watch(engine: Engine, now: int) -> list[Kept]:
    """Compare the streams of scores with what was certified; the certificates that lapsed."""
    lapsed = []
    certificates.drop_late(engine, now)
    newest = certificates.newest_attempt(engine)
    for one in certificates.in_force(engine):
        scope = one.scope
        rows = certificates.stream(
            engine, scope.kind, scope.lane, scope.adapter, after=one.seen, limit=AT_ONCE
        )
        if not rows and newest == one.seen:
            continue
        state = drift.watch(drift.from_json(dict(one.drift)), _scores(scope, rows))
        reason = _change(one.certificate, rows) if rows else ""
        if state.drifted:
            reason = reason or f"its scores have drifted: {drift.means(state)}"
        if reason:
            certificates.lapse(engine, one, reason, now)
            lapsed.append(one)
        else:
            # Attempts without a verdict yet are not waited for: a stream has no need of all.
            # Some may have come since the newest was looked up.
            seen = rows[-1].id if len(rows) == AT_ONCE else max([newest, *(r.id for r in rows)])
            certificates.note_drift(engine, one, state.as_json(), seen)
    return lapsed


def wants_certificates(catalog: Catalog) -> bool:
    """Whether any kind of a catalog is to be certified as labels come in."""
    return catalog.certificates.certify or any(k.certified for k in catalog.kinds.values())


def _by_scope(
    catalog: Catalog, rows: Sequence[Labelled], *, every: bool
) -> dict[Scope, list[Labelled]]:
    """The labelled answers of each scope that may be certified, as its lane is served now."""
    newest = {(row.kind, row.lane): row.fingerprint for row in rows}
    found: dict[Scope, list[Labelled]] = defaultdict(list)
    for row in rows:
        lane = catalog.lanes.get(row.lane)
        if lane is None or lane.model != row.model or is_top(row.lane, catalog):
            continue
        kind = catalog.kind(row.kind)
        wanted = every or catalog.certificates.certify or kind.certified
        if not wanted or newest[row.kind, row.lane] != row.fingerprint:
            continue
        adapter = kind.adapter if kind.adapter in catalog.models[row.model].adapters else ""
        scope = Scope(
            row.kind, row.lane, row.model, row.fingerprint, row.template, adapter or ""
        )  # fmt: skip
        found[scope].append(row)
    return found


def _examine(
    engine: Engine,
    catalog: Catalog,
    scope: Scope,
    rows: Sequence[Labelled],
    known: Sequence[Kept],
    now: int,
    again: bool,
) -> Examined:
    wishes = catalog.certificates
    earlier = [one for one in known if one.scope == scope]
    since = max((e.lapsed_at or 0 for e in earlier if e.standing is Standing.LAPSED), default=0)
    subject = Subject(scope.kind, scope.model, scope.fingerprint, scope.template, scope.adapter)
    since = max(since, calibrated_at(engine, subject))
    tries = [
        e for e in known
        if _pot(e.scope, catalog) == _pot(scope, catalog) and e.certificate.created_at > since
    ]  # fmt: skip
    judged = _judged([row for row in rows if row.created_at > since])
    needed = max(wishes.min_labels, _more(scope, tries, catalog, again))
    if len(judged) < needed:
        return Examined(scope, len(judged), needed)
    promise = Promise(wishes.alpha, _share(catalog, len(tries)))
    made = fit(scope, judged, promise, now)
    return Examined(scope, len(judged), needed, _kept(engine, made, promise))


def _kept(engine: Engine, made: Certificate, promise: Promise) -> Kept:
    scope = made.scope
    if not made.holds:
        reason = (
            f"no threshold is shown to keep errors below {made.alpha:g} with {made.labels} labels; "
            f"{promise.fewest} right ones in a row would be the fewest that do"
        )
        return Kept(made, Standing.REFUSED, made.created_at, reason)
    recent = certificates.stream(
        engine, scope.kind, scope.lane, scope.adapter, after="", limit=drift.MOST, last=True
    )
    reference = drift.begin(_scores(scope, recent))
    return Kept(made, drift=reference.as_json(), seen=recent[-1].id if recent else "")


def _judged(rows: Sequence[Labelled]) -> list[Judged]:
    """The answers that the rubric lets pass and whose chance of being labelled is known."""
    return [
        Judged(row.p, row.correct, row.answer, row.propensity)
        for row in rows
        if row.sound and row.p is not None and row.propensity
    ]


def _more(scope: Scope, tries: Sequence[Kept], catalog: Catalog, again: bool) -> int:
    """The labels for another attempt after ``tries``, the newest of them first."""
    last = next((n for n, one in enumerate(tries) if one.scope == scope), None)
    if last is None:
        return 0
    made = tries[last].certificate
    delta = _share(catalog, len(tries) - 1 - last)
    if made.alpha != catalog.certificates.alpha or not math.isclose(made.delta, delta):
        return 0  # the profile promises something else by now
    return made.labels + 1 if again else 2 * made.labels


def _pot(scope: Scope, catalog: Catalog) -> tuple[str, ...]:
    """What has a share of ``delta`` of its own, as a name.

    That is a kind that the profile names to be certified, on a lane as it is served now; all other
    kinds have one together. Templates and adapters have none of their own.
    """
    kind = scope.kind if scope.kind in _named(catalog) else ""
    return kind, scope.lane, scope.model, scope.fingerprint


def _named(catalog: Catalog) -> set[str]:
    every = catalog.certificates.certify
    choices = (None, OutputType.CHOICE)
    return {
        name for name, kind in catalog.kinds.items()
        if kind.certified or (every and kind.output in choices)
    }  # fmt: skip


def _share(catalog: Catalog, tries: int) -> float:
    """What of ``delta`` an attempt may use up, after ``tries`` others from the same pot.

    All pots of the lanes below the top have the same; of a pot the j-th attempt, from 0, gets
    1 / ((j + 1) (j + 2)), which adds up to 1. Who tried until it worked would else be wrong more
    often than promised.
    """
    lanes = sum(1 for lane in catalog.lanes if not is_top(lane, catalog))
    pots = max(1, lanes) * (len(_named(catalog)) + 1)
    return catalog.certificates.delta / pots / ((tries + 1) * (tries + 2))


def _scores(scope: Scope, rows: Sequence[Scored]) -> list[float]:
    return [r.p for r in rows if r.scope == scope and r.sound and r.p is not None]


def _change(certificate: Certificate, rows: Sequence[Scored]) -> str:
    """What changed of the model or the template, if the newest attempt shows it."""
    served = rows[-1].scope
    name = certificate.scope.template.partition("@")[0]
    if served.template.partition("@")[0] != name:
        return ""  # the kind is asked in several ways at once
    return certificate.lapse(served) or ""
