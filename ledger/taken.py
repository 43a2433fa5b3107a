"""What the answers of decisions took: tokens, model, tier, attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from config.catalog import Catalog
from ledger.database import reading
from ledger.transitions import ATTEMPTS, chunks
from routing.decision import Settled


@dataclass(frozen=True)
class Usage:
    """What one decision took. Tokens are those of the call that gave its answer; an answer from
    the cache has none, a fallback no model either."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    truncated: bool = False
    model: str | None = None
    tier: str | None = None
    attempts: int = 0
    """Calls of all lanes, failed ones among them."""


def usages(engine: Engine, settled: Iterable[Settled], catalog: Catalog | None) -> dict[str, Usage]:
    """What each of these decisions took, by its id; without a catalog their tiers are not told."""
    ended = {one.id: one for one in settled}
    tries: dict[str, list[Any]] = defaultdict(list)
    columns = ATTEMPTS.c
    with reading(engine) as connection:
        for chunk in chunks(list(ended)):
            query = (
                select(
                    columns.decision_id, columns.lane, columns.number, columns.model,
                    columns.outcome, columns.truncated, columns.tokens_in, columns.tokens_out,
                    columns.tokens_cached,
                )
                .where(columns.decision_id.in_(chunk))
                .order_by(columns.decision_id, columns.created_at, columns.id)
            )  # fmt: skip
            for row in connection.execute(query):
                tries[row.decision_id].append(row)
    return {i: _usage(one, tries.get(i, ()), catalog) for i, one in ended.items()}


def _usage(settled: Settled, tries: Sequence[Any], catalog: Catalog | None) -> Usage:
    lane = None if catalog is None else catalog.lanes.get(settled.lane or "")
    answering = [t for t in tries if t.lane == settled.lane and t.outcome == "answered"]
    tier = None if lane is None else lane.tier
    if not answering:
        model = None if lane is None else lane.model
        return Usage(model=model, tier=tier, attempts=len(tries))
    last = answering[-1]
    return Usage(
        tokens_in=last.tokens_in,
        tokens_out=last.tokens_out,
        tokens_cached=last.tokens_cached,
        truncated=last.truncated,
        model=last.model,
        tier=tier,
        attempts=len(tries),
    )
