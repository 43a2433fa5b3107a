"""What SQLite goes by to find decisions: what a message costs may not grow with the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from sqlalchemy import Engine, event

from config.queues import make_app
from config.settings import Settings
from ledger import lanes, lifecycle
from ledger.answers import find_answered
from ledger.clock import now
from ledger.database import _alembic_config, migrate, reading
from ledger.metrics.standing import standing
from ledger.records import StoredVerdict, Tried
from ledger.rulings import Ruling, Settlement
from ledger.runs import start_run
from ledger.transitions import IN_AT_ONCE
from routing.decision import Status
from tests.unit.ledgers import fresh, planned
from workers.publishing import Publisher
from workers.steward import Steward

BY_ID = re.compile(r"SEARCH decision USING (COVERING )?INDEX sqlite_autoindex_decision_1 ")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = fresh(tmp_path)
    yield found
    found.dispose()


@pytest.fixture
def plans(engine: Engine) -> list[tuple[str, str]]:
    """Every statement from now on, with SQLite's plan of it."""
    found: list[tuple[str, str]] = []

    def look(_: Any, cursor: Any, statement: str, parameters: Any, __: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            given = parameters[0] if many else parameters
            asked = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", given)
            found.append((statement, "; ".join(row[3] for row in asked)))

    event.listen(engine, "before_cursor_execute", look)
    return found


def live(engine: Engine, run_id: str, ids: list[str]) -> None:
    """Claim, answer, check and settle decisions, and read what came of them."""
    moment = now()
    assert len(lifecycle.claim(engine, "a", ids, token="t", now=moment, lease_us=10**9)) == len(ids)
    lifecycle.renew(engine, "t", now=moment, lease_us=10**9)
    assert not lifecycle.given_up(engine, ids, ["t"])
    lifecycle.record(engine, "t", [Tried(one, "m", "f", raw="A", label="A") for one in ids], moment)
    verdict = StoredVerdict(format=1, completeness=1, coherence=1, score=1, passed=True,
                            usable=True, answer="A").model_dump_json()  # fmt: skip
    rulings = [
        Ruling(one.id, one.hop, one.attempt_id, verdict, 1.0, True,
               settle=Settlement(Status.ACCEPTED, "A", "a", "well"))
        for one in find_answered(engine, ids)
    ]  # fmt: skip
    lifecycle.rule(engine, rulings, moment)
    assert len(lifecycle.find_settled(engine, ids)) == len(ids)
    lifecycle.cancel(engine, moment, ids=ids)


@pytest.mark.parametrize("together", [2, 11, 60, IN_AT_ONCE])
def test_decisions_are_found_by_their_ids_however_many_there_are(
    engine: Engine, plans: list[tuple[str, str]], together: int
) -> None:
    run_id = start_run(engine, mode="test", profile="tiny", now=0).id
    items = [planned(f"k{number}", "a", "b") for number in range(together)]
    live(engine, run_id, list(lifecycle.submit(engine, run_id, items, now()).ids))
    by_id = [(query, plan) for query, plan in plans if "decision.id IN (?" in query]
    assert len(by_id) > 5
    lifecycle.cancel(engine, now(), run_id=run_id)
    for query, plan in by_id:
        assert BY_ID.search(plan), (plan, query)
        assert "state_due" not in plan, (plan, query)
    for query, plan in plans:
        assert "SCAN decision" not in plan, (plan, query)


def test_neither_the_steward_nor_a_scrape_goes_through_what_has_settled(
    engine: Engine, plans: list[tuple[str, str]], tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, profile="tiny")
    run_id = start_run(engine, mode="test", profile="tiny", now=0).id
    items = [planned(f"k{number}", "tier1", "tier2") for number in range(40)]
    ids = list(lifecycle.submit(engine, run_id, items, now() - 10**9).ids)
    lifecycle.claim(engine, "tier1", ids[:9], token="t", now=now() - 10**8, lease_us=1)
    lifecycle.claim(engine, "tier1", ids[9:20], token="u", now=now(), lease_us=10**9)
    lifecycle.record(engine, "u", [Tried(i, "m", "f", raw="A") for i in ids[9:15]], now())
    app = make_app(settings, "redis://127.0.0.1:9")
    steward = Steward(
        settings, engine=engine, publisher=Publisher(app, engine), holder="me", clock=now
    )
    lanes.take_out(engine, "tier2", lanes.Standing.DOWN, "test", "me", now())
    assert steward.round()
    with reading(engine) as connection:
        list(standing(connection, settings.catalog, now()))
    told = [(plan, query) for query, plan in plans if "decision" in query or "attempt" in query]
    assert len(told) > 5
    assert not [one for one in told if re.search("SCAN (decision|attempt)", one[0])]


def test_an_older_ledger_learns_it(engine: Engine, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    config = _alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "0012")
        assert not connection.exec_driver_sql("SELECT * FROM sqlite_stat1").all()
    migrate(settings)
    with reading(engine) as connection:
        query = "SELECT idx FROM sqlite_stat1 WHERE tbl = 'decision'"
        told = {row.idx for row in connection.exec_driver_sql(query)}
        kept = connection.exec_driver_sql("SELECT name FROM pragma_index_list('decision')")
        assert set(kept.scalars()) == told
