"""Corrections of label probabilities, and the labelled history that they are found from.

A correction holds for one kind, model, fingerprint (the hash of the weights and their prepared
format), adapter and template with its version: where one of these differs it does not apply.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import DBAPIError

from ledger import certificates, policies
from ledger.cache import rests_on
from ledger.clock import SECOND, Clock
from ledger.database import reading, writing
from ledger.records import output_of
from ledger.tables import TABLES
from routing.confidence import Correction
from routing.decision import ChoiceOutput

ROWS = TABLES.tables["calibration"]
DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
CACHE = TABLES.tables["cache_entry"]
REREAD_US = 60 * SECOND
"""How long a worker answers by the corrections that it has read."""
MOST = 20_000
"""Attempts that are looked at, the newest first."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What a correction is of; ``template`` is name and version, as in ``next_action@1``."""

    kind: str
    model: str
    fingerprint: str
    template: str
    adapter: str = ""


@dataclass(frozen=True)
class Calibrated:
    """A correction of a subject, found and checked with ``samples`` labelled decisions."""

    subject: Subject
    correction: Correction
    samples: int


@dataclass(frozen=True)
class Labelled:
    """A decision whose right answer is known, with the model's own probabilities of its labels."""

    prompt: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    expected: str


def in_force(engine: Engine, model: str, fingerprint: str) -> dict[Subject, Correction]:
    """The newest correction of every subject of a model as it is served now."""
    query = (
        select(*ROWS.c)
        .where(ROWS.c.model == model, ROWS.c.fingerprint == fingerprint)
        .order_by(ROWS.c.created_at, ROWS.c.id)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return {
        Subject(r.kind, r.model, r.fingerprint, r.template, r.adapter): Correction(
            json.loads(r.bias), r.temperature
        )
        for r in rows
    }


def store(engine: Engine, found: Sequence[Calibrated], lanes: Sequence[str], now: int) -> None:
    """Put corrections in force, all at once.

    Cached answers of the model's ``lanes`` leave with it, for they were chosen by the old ones.
    """
    if not found:
        return
    with writing(engine) as connection:
        connection.execute(insert(ROWS), [_row(one, now) for one in found])
        for one in found:
            _ended(connection, one.subject.model, [one.subject.kind], now)
        connection.execute(delete(CACHE).where(rests_on(lanes)))


def forget(engine: Engine, model: str, kinds: Sequence[str], lanes: Sequence[str], now: int) -> int:
    """Take all corrections of these kinds of a model back, and cached answers; how many."""
    with writing(engine) as connection:
        found = delete(ROWS).where(ROWS.c.model == model, ROWS.c.kind.in_(kinds))
        count = connection.execute(found).rowcount
        if count:
            _ended(connection, model, kinds, now)
            connection.execute(delete(CACHE).where(rests_on(lanes)))
    return int(count)


def _ended(connection: Connection, model: str, kinds: Sequence[str], now: int) -> None:
    """End what rests on probabilities that mean something else now."""
    certificates.recalibrated(connection, model, kinds, now)
    policies.recalibrated(connection, model, kinds, now)


def calibrated_at(engine: Engine, subject: Subject) -> int:
    """When the correction in force of a subject was found; 0 if it has none."""
    query = select(func.max(ROWS.c.created_at)).where(
        *(ROWS.c[name] == value for name, value in asdict(subject).items())
    )
    with reading(engine) as connection:
        return int(connection.execute(query).scalar() or 0)


def labelled(engine: Engine, subject: Subject, run_id: str | None = None) -> list[Labelled]:
    """The history of a subject, of one run or of all: each decision's last attempt that has
    probabilities, in the order of submission. Answers from the cache have none of their own, and
    decisions whose asker chose the adapter are left out."""
    query = (
        select(DECISIONS.c.id, DECISIONS.c.prompt, DECISIONS.c.output, DECISIONS.c.expected,
               ATTEMPTS.c.probabilities)
        .join(ATTEMPTS, ATTEMPTS.c.decision_id == DECISIONS.c.id)
        .where(
            DECISIONS.c.kind == subject.kind, DECISIONS.c.template == subject.template,
            DECISIONS.c.expected.is_not(None), ATTEMPTS.c.probabilities.is_not(None),
            DECISIONS.c.preferences.not_like('%"adapter"%'),
            ATTEMPTS.c.model == subject.model, ATTEMPTS.c.fingerprint == subject.fingerprint,
        )
        .order_by(ATTEMPTS.c.id.desc())
        .limit(MOST)
    )  # fmt: skip
    if run_id is not None:
        query = query.where(DECISIONS.c.run_id == run_id)
    with reading(engine) as connection:
        rows = {r.id: r for r in reversed(connection.execute(query).all())}
    found = (_labelled(rows[key]) for key in sorted(rows))
    return [one for one in found if one is not None]


class Calibrations:
    """The corrections of the model that a worker serves, read again at most once a minute.

    Safe to share between threads. While the ledger is away, those read before stay in force.
    """

    def __init__(self, engine: Engine, model: str, fingerprint: str, clock: Clock) -> None:
        self._engine = engine
        self._model = model
        self._fingerprint = fingerprint
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[Subject, Correction] = {}
        self._read_at = 0
        self._read()

    def find(self, kind: str, template: str, adapter: str = "") -> Correction | None:
        """The correction in force for a kind asked by this template, if there is one."""
        due = self._clock() - self._read_at >= REREAD_US
        if due and self._lock.acquire(blocking=False):  # the others go on with what there is
            try:
                self._read()
            finally:
                self._lock.release()
        return self._found.get(Subject(kind, self._model, self._fingerprint, template, adapter))

    def _read(self) -> None:
        self._read_at = self._clock()
        try:
            self._found = in_force(self._engine, self._model, self._fingerprint)
        except DBAPIError as error:
            log.warning("calibrations of %s could not be read: %s", self._model, error.orig)


def _row(found: Calibrated, now: int) -> dict[str, object]:
    subject, correction = found.subject, found.correction
    return {
        "kind": subject.kind,
        "model": subject.model,
        "fingerprint": subject.fingerprint,
        "adapter": subject.adapter,
        "template": subject.template,
        "temperature": correction.temperature,
        "bias": json.dumps({label: round(b, 6) for label, b in correction.bias.items()}),
        "samples": found.samples,
        "created_at": now,
    }


def _labelled(row: Any) -> Labelled | None:
    """The row as a value, unless its right answer is none of its labels."""
    output = output_of(row.output)
    if not isinstance(output, ChoiceOutput) or row.expected not in output.labels:
        return None
    probabilities = tuple(json.loads(row.probabilities))
    if len(probabilities) != len(output.labels):
        return None
    return Labelled(row.prompt, output.labels, probabilities, row.expected)
