"""Certificates in the ledger: which are in force, which were refused, and why others lapsed.

A certificate holds for a kind on a lane, and for one model, fingerprint, adapter and template with
its version: where one of these differs it does not apply.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, and_, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from ledger.cache import rests_on
from ledger.clock import SECOND, Clock
from ledger.database import reading, writing
from ledger.patience import patiently
from ledger.records import StoredVerdict
from ledger.tables import TABLES
from routing.certify import Certificate, Scope

ROWS = TABLES.tables["certificate"]
DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
CACHE = TABLES.tables["cache_entry"]

REREAD_US = 60 * SECOND
"""How long a checker goes by the certificates that it has read."""

log = logging.getLogger(__name__)


class Standing(StrEnum):
    """What has become of an attempt to certify."""

    IN_FORCE = "in_force"
    REFUSED = "refused"
    """No threshold keeps the promise with the labels there were."""
    REPLACED = "replaced"
    LAPSED = "lapsed"


@dataclass(frozen=True)
class Kept:
    """A certificate as the ledger keeps it, or the refusal of one.

    ``drift`` is the state of the test on the stream of scores (routing/drift.py), ``seen`` the
    attempt up to which that stream was read.
    """

    certificate: Certificate
    standing: Standing = Standing.IN_FORCE
    lapsed_at: int | None = None
    reason: str = ""
    drift: Mapping[str, Any] = field(default_factory=dict)
    seen: str = ""
    id: int = 0

    @property
    def scope(self) -> Scope:
        """What it is of."""
        return self.certificate.scope


@dataclass(frozen=True)
class Scored:
    """A judged attempt of the stream, with the probability of its answer where it has one."""

    id: str
    scope: Scope
    p: float | None
    sound: bool


class CertificateState(BaseModel):
    """How a certificate stands, as status shows it."""

    kind: str
    lane: str
    standing: Standing
    reason: str


def states(engine: Engine) -> list[CertificateState]:
    """How every kind stands on every lane: by what is in force, else by what came last of it."""
    newest: dict[tuple[str, str], Kept] = {}
    for one in sorted(history(engine), key=lambda one: one.standing is not Standing.IN_FORCE):
        newest.setdefault((one.scope.kind, one.scope.lane), one)
    return [
        CertificateState(kind=kind, lane=lane, standing=one.standing, reason=one.reason)
        for (kind, lane), one in sorted(newest.items())
    ]


def in_force(engine: Engine) -> list[Kept]:
    """All certificates that hold now."""
    return history(engine, Standing.IN_FORCE)


def history(engine: Engine, standing: Standing | None = None) -> list[Kept]:
    """Certificates of a standing, or all, the newest first."""
    query = select(*ROWS.c).order_by(ROWS.c.id.desc())
    if standing is not None:
        query = query.where(ROWS.c.standing == standing.value)
    with reading(engine) as connection:
        return [_value(row) for row in connection.execute(query)]


def store(engine: Engine, found: Sequence[Kept], now: int) -> None:
    """Keep certificates, and refusals of them; either ends what was in force of its scope.

    A refusal does so because the newer labels do not show any more what the older ones did. Answers
    that such a lane has in the cache leave with it, for they were let pass by another rule.
    """
    if not found:
        return
    with writing(engine) as connection:
        for one in found:
            certified = one.standing is Standing.IN_FORCE
            reason = "replaced by a newer one" if certified else f"tried again: {one.reason}"
            ended = _end(connection, _of(one.scope), Standing.REPLACED, reason, now)
            if ended or certified:
                _drop_cached(connection, one.scope.lane)
        connection.execute(insert(ROWS), [_row(one) for one in found])


def lapse(engine: Engine, one: Kept, reason: str, now: int) -> bool:
    """End a certificate; ``False`` if it had ended already."""
    with writing(engine) as connection:
        ended = _end(connection, ROWS.c.id == one.id, Standing.LAPSED, reason, now)
        if ended:
            _drop_cached(connection, one.scope.lane)
    return ended


def drop_late(engine: Engine, now: int) -> None:
    """Drop cached answers that were let pass by certificates after these had ended.

    Checkers read certificates again once a minute only, so that some may have come since.
    """
    ended = ROWS.c.lapsed_at > now - 3 * REREAD_US
    with reading(engine) as connection:
        late = connection.execute(select(ROWS.c.lane, ROWS.c.lapsed_at).where(ended)).all()
    if not late:
        return
    with writing(engine) as connection:
        for lane, since in late:
            between = CACHE.c.created_at.between(since, since + 2 * REREAD_US)
            connection.execute(delete(CACHE).where(CACHE.c.lane == lane, between))


def recalibrated(connection: Connection, model: str, kinds: Sequence[str], now: int) -> None:
    """End the certificates of these kinds of a model, whose probabilities mean something else now.

    What was tried before is of the old scale as well, so that refusals count as lapsed too.
    """
    mine = (ROWS.c.model == model) & ROWS.c.kind.in_(kinds)
    standing = ROWS.c.standing.in_((Standing.IN_FORCE.value, Standing.REFUSED.value))
    reason = "the calibration of its probabilities changed"
    values = {"standing": Standing.LAPSED.value, "reason": reason, "lapsed_at": now}
    connection.execute(update(ROWS).where(mine, standing).values(**values))


def newest_attempt(engine: Engine) -> str:
    """The id of the newest attempt; empty if there is none."""
    with reading(engine) as connection:
        return str(connection.execute(select(func.max(ATTEMPTS.c.id))).scalar() or "")


def note_drift(engine: Engine, one: Kept, drift: Mapping[str, Any], seen: str) -> None:
    """Keep how far the test on the stream of scores has come."""
    values = {"drift": json.dumps(drift), "seen": seen}
    with writing(engine) as connection:
        connection.execute(update(ROWS).where(ROWS.c.id == one.id).values(**values))


def stream(
    engine: Engine,
    kind: str,
    lane: str,
    adapter: str,
    *,
    after: str,
    limit: int,
    last: bool = False,
) -> list[Scored]:
    """Judged attempts of a kind on a lane after an attempt, in their order; the first ``limit``.

    With ``last`` the last ``limit``. Audits, and answers by an adapter that the asker chose, are
    no part of it.
    """
    query = (
        select(
            ATTEMPTS.c.id, ATTEMPTS.c.model, ATTEMPTS.c.fingerprint, ATTEMPTS.c.verdict,
            DECISIONS.c.template,
        )
        .join(DECISIONS, DECISIONS.c.id == ATTEMPTS.c.decision_id)
        .where(
            DECISIONS.c.kind == kind, ATTEMPTS.c.lane == lane, ATTEMPTS.c.verdict.is_not(None),
            ATTEMPTS.c.id > after, DECISIONS.c.propensity.is_(None),
            DECISIONS.c.preferences.not_like('%"adapter"%'),
        )
        .order_by(ATTEMPTS.c.id.desc() if last else ATTEMPTS.c.id)
        .limit(limit)
    )  # fmt: skip
    with reading(engine) as connection:
        rows = sorted(connection.execute(query).all(), key=lambda r: str(r.id))
    found = []
    for row in rows:
        verdict = StoredVerdict.model_validate_json(row.verdict)
        scope = Scope(kind, lane, row.model, row.fingerprint, row.template, adapter)
        found.append(Scored(row.id, scope, verdict.p_answer, verdict.is_sound))
    return found


class Certificates:
    """The certificates in force, read again at most once a minute.

    While the ledger is away, those read before stay in force.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[Scope, Certificate] = {}
        self._read_at: int | None = None

    def find(self, scope: Scope) -> Certificate | None:
        """The certificate in force for a scope, if there is one."""
        due = self._read_at is None or self._clock() - self._read_at >= REREAD_US
        if due and self._lock.acquire(blocking=self._read_at is None):
            try:
                self._read()
            finally:
                self._lock.release()
        return self._found.get(scope)

    def _read(self) -> None:
        found: list[Kept] | None = None
        if self._read_at is None:  # without them nothing may be ruled on
            found = patiently(in_force, self._engine)
        else:
            try:
                found = in_force(self._engine)
            except DBAPIError as error:
                log.warning("certificates could not be read: %s", error.orig)
        self._read_at = self._clock()
        if found is not None:
            self._found = {one.scope: one.certificate for one in reversed(found)}


def _of(scope: Scope) -> Any:
    return and_(*(ROWS.c[name] == value for name, value in asdict(scope).items()))


def _end(connection: Connection, which: Any, standing: Standing, reason: str, now: int) -> bool:
    statement = (
        update(ROWS)
        .where(which, ROWS.c.standing == Standing.IN_FORCE.value)
        .values(standing=standing.value, reason=reason, lapsed_at=now)
    )
    return connection.execute(statement).rowcount > 0


def _drop_cached(connection: Connection, lane: str) -> None:
    connection.execute(delete(CACHE).where(rests_on([lane])))


def _row(one: Kept) -> dict[str, Any]:
    made = one.certificate
    return {
        **asdict(one.scope),
        "alpha": made.alpha,
        "delta": made.delta,
        "thresholds": json.dumps(dict(made.thresholds)),
        "n": made.n,
        "errors": made.errors,
        "labels": made.labels,
        "standing": one.standing.value,
        "reason": one.reason,
        "drift": json.dumps(one.drift),
        "seen": one.seen,
        "created_at": made.created_at,
        "lapsed_at": one.lapsed_at,
    }


def _value(row: Any) -> Kept:
    scope = Scope(row.kind, row.lane, row.model, row.fingerprint, row.template, row.adapter)
    made = Certificate(
        scope, row.alpha, row.delta, json.loads(row.thresholds), row.n, row.errors, row.labels,
        row.created_at,
    )  # fmt: skip
    drift = json.loads(row.drift)
    return Kept(made, Standing(row.standing), row.lapsed_at, row.reason, drift, row.seen, row.id)
