"""What the cache holds, how often it serves, and how far its semantic layer has proven itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, case, func, select

from config.catalog import Catalog, Kind
from ledger.cache import ENTRIES, was_served
from ledger.cache_audits import agreement
from ledger.database import reading
from ledger.tables import TABLES
from routing.decision import State
from routing.similar import Trust, lower_bound, trust

DECISIONS = TABLES.tables["decision"]
BYPASSES = ('%"cache":"off"%', '%"own_sample":true%')
"""What the preferences of decisions look like that ask for no earlier answer."""


class Semantic(BaseModel):
    """The semantic layer of a kind: its threshold beside what audits measured at it."""

    embedder: str
    similarity: float
    audited: int
    agreed: int
    disagreement: float | None
    """Share of audited answers that differ; ``None`` before the first."""
    agreement_at_least: float
    """The lower confidence bound of agreement, which is held against ``floor``."""
    floor: float
    confidence: float
    state: Trust


class KindUse(BaseModel):
    """One kind's part: entries and their hits; decisions that might be served, and were."""

    entries: int
    hits: int
    decisions: int
    served: int
    hit_rate: float | None
    ttl_s: float | None
    semantic: Semantic | None = None


class CacheStats(BaseModel):
    """The whole cache. Hits are those of the entries that are there now."""

    entries: int
    max_entries: int
    hits: int
    average_hits: float | None
    decisions: int
    served: int
    hit_rate: float | None
    by_kind: dict[str, KindUse]


def cache_stats(engine: Engine, catalog: Catalog, embedder: str) -> CacheStats:
    """Of all runs; ``embedder`` names the one in use, whose audits count."""
    with reading(engine) as connection:
        held = _held(connection)
        asked = _asked(connection)
    names = {name for name, kind in catalog.kinds.items() if kind.cache} | held.keys()
    by_kind = {
        name: _kind_use(engine, catalog, name, held.get(name), asked.get(name), embedder)
        for name in sorted(names)
    }
    entries, hits = (sum(row[i] for row in held.values()) for i in (0, 1))
    decisions = sum(use.decisions for use in by_kind.values())
    served = sum(use.served for use in by_kind.values())
    return CacheStats(
        entries=entries,
        max_entries=catalog.cache.max_entries,
        hits=hits,
        average_hits=_share(hits, entries),
        decisions=decisions,
        served=served,
        hit_rate=_share(served, decisions),
        by_kind=by_kind,
    )


def _held(connection: Connection) -> dict[str, tuple[int, int]]:
    query = select(ENTRIES.c.kind, func.count(), func.sum(ENTRIES.c.hits)).group_by(ENTRIES.c.kind)
    return {kind: (count, int(hits)) for kind, count, hits in connection.execute(query)}


def _asked(connection: Connection) -> dict[str, tuple[int, int]]:
    served = func.sum(case((was_served(), 1), else_=0))
    query = (
        select(DECISIONS.c.kind, func.count(), served)
        .where(
            DECISIONS.c.state == State.SETTLED.value,
            *(DECISIONS.c.preferences.not_like(wish) for wish in BYPASSES),
        )
        .group_by(DECISIONS.c.kind)
    )
    return {kind: (count, int(cached)) for kind, count, cached in connection.execute(query)}


def _kind_use(
    engine: Engine,
    catalog: Catalog,
    name: str,
    held: Any,
    asked: Any,
    embedder: str,
) -> KindUse:
    kind = catalog.kind(name)
    entries, hits = held or (0, 0)
    decisions, served = asked or (0, 0)
    return KindUse(
        entries=entries,
        hits=hits,
        decisions=decisions,
        served=served,
        hit_rate=_share(served, decisions),
        ttl_s=catalog.cache.ttl_s if kind.cache_ttl_s is None else kind.cache_ttl_s,
        semantic=_semantic(engine, catalog, name, kind, embedder) if kind.semantic else None,
    )


def _semantic(engine: Engine, catalog: Catalog, name: str, kind: Kind, embedder: str) -> Semantic:
    rules = catalog.cache
    similarity = rules.similarity if kind.similarity is None else kind.similarity
    found = agreement(engine, name, embedder, similarity, rules.audit_window)
    return Semantic(
        embedder=embedder,
        similarity=similarity,
        audited=found.audited,
        agreed=found.agreed,
        disagreement=_share(found.audited - found.agreed, found.audited),
        agreement_at_least=lower_bound(found.agreed, found.audited, rules.confidence),
        floor=rules.agreement_floor,
        confidence=rules.confidence,
        state=trust(found.agreed, found.audited, rules.agreement_floor, rules.confidence),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
