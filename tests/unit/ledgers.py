"""Decisions on a real SQLite ledger, for tests of what the ledger does with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from config.settings import Settings
from ledger import lifecycle
from ledger.database import migrate, open_ledger, reading
from ledger.records import Claimed, Planned
from ledger.tables import TABLES
from routing.decision import ChoiceOutput, Complexity, Decision, Hop, Plan

LEASE_US = 1_000


def fresh(folder: Path) -> Engine:
    """An empty ledger."""
    settings = Settings(data_dir=folder)
    migrate(settings)
    return open_ledger(settings)


def planned(key: str, *lanes: str, **more: Any) -> Planned:
    """A question with labels A and B whose plan has these lanes."""
    decision = Decision(
        kind="question", prompt=f"What about {key}?", output=ChoiceOutput(labels=("A", "B")),
        key=key, **more,
    )  # fmt: skip
    hops = tuple(Hop(lane=lane, reason="test") for lane in lanes)
    return Planned(decision, Plan(hops=hops, complexity=Complexity.SIMPLE))


def claim_one(engine: Engine, decision_id: str, token: str, now: int, lane: str) -> Claimed:
    """The decision, claimed."""
    [found] = lifecycle.claim(engine, lane, [decision_id], token=token, now=now, lease_us=LEASE_US)
    return found


def rows(engine: Engine, table: str) -> list[dict[str, Any]]:
    """All rows of a table, in the order of their keys."""
    columns = TABLES.tables[table]
    with reading(engine) as connection:
        query = select(*columns.c).order_by(*columns.primary_key.columns)
        return [dict(row._mapping) for row in connection.execute(query)]
