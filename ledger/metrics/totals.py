"""The counters: sums over everything that was ever counted in this ledger.

A total is its own row and what is not folded into it yet, read in one statement: whoever reads
between two steps of a fold sees neither gaps nor doubles, so that no counter ever falls.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, delete, literal, null, select, union_all
from sqlalchemy.dialects import postgresql, sqlite

from config.catalog import Catalog
from ledger.database import reading, writing
from ledger.metrics.catalog import BY_NAME, OTHER_KIND
from ledger.metrics.tally import SEPARATOR, TALLIES
from ledger.tables import TABLES
from routing.classification import CLASSIFICATION_KIND
from routing.critique import CRITIC_KIND

TOTALS = TABLES.tables["tally_total"]
FOLD_AT_ONCE = 2_000
"""Transactions whose counts are folded in one: a fraction of a second's write."""
Series = tuple[str, ...]
"""A metric's name and the values of its labels; of a histogram, a bucket or ``sum`` besides."""


def known_kinds(catalog: Catalog) -> frozenset[str]:
    """The kinds that are counted by their names."""
    return frozenset(catalog.kinds) | {CRITIC_KIND, CLASSIFICATION_KIND}


def fold(engine: Engine, kinds: Collection[str], limit: int = FOLD_AT_ONCE) -> int:
    """Add the oldest tallies to the totals and remove them; how many there were, 0 where another
    folds them.

    Kinds that are none of ``kinds`` are counted together. What they come to is reckoned before
    anything is locked.
    """
    with reading(engine) as connection:
        query = select(TALLIES.c.id, TALLIES.c.counts).order_by(TALLIES.c.id).limit(limit)
        found = connection.execute(query).all()
    if not found:
        return 0
    sums = _summed([json.loads(row.counts) for row in found], kinds)
    rows = [{"key": SEPARATOR.join(s), "value": n} for s, n in sorted(sums.items())]
    with writing(engine) as connection:
        # Each by its id: on PostgreSQL a lower one than the last may have come in since.
        taken = delete(TALLIES).where(TALLIES.c.id.in_([row.id for row in found]))
        if connection.execute(taken).rowcount < len(found):
            connection.rollback()
            return 0
        connection.execute(_added(connection), rows)
    return len(found)


def totals(connection: Connection, kinds: Collection[str]) -> dict[Series, int]:
    """Every series with its sum, in the ledger's units; kinds that are none of ``kinds``
    together."""
    query = union_all(
        select(TOTALS.c.key, TOTALS.c.value, null().label("counts")),
        select(literal(""), literal(0), TALLIES.c.counts),
    )
    found: list[Mapping[str, int]] = []
    for key, value, counts in connection.execute(query):
        found.append({key: value} if counts is None else json.loads(counts))
    return dict(_summed(found, kinds))


def _summed(found: Collection[Mapping[str, int]], kinds: Collection[str]) -> Counter[Series]:
    flat: Counter[str] = Counter()
    for counts in found:
        flat.update(counts)
    sums: Counter[Series] = Counter()
    for key, value in flat.items():
        sums[_bounded(key, kinds)] += value
    return sums


def _bounded(key: str, kinds: Collection[str]) -> Series:
    """A series whose kind is one of ``kinds``, or ``other``."""
    name, *labels = key.split(SEPARATOR)
    metric = BY_NAME.get(name)
    if metric is not None and metric.labels[:1] == ("kind",) and labels[0] not in kinds:
        labels[0] = OTHER_KIND
    return (name, *labels)


def _added(connection: Connection) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(TOTALS)
    sums = {"value": TOTALS.c.value + statement.excluded.value}
    return statement.on_conflict_do_update(index_elements=["key"], set_=sums)
