"""The report of a run: what everything on the reference model would have cost, and its printing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from cli.report import print_report
from ledger.database import writing
from ledger.reports import report
from ledger.tables import TABLES
from tests.unit.costs_house import AB, CostsHouse
from tests.unit.ledgers import rows


@pytest.fixture
def house(tmp_path: Path) -> Iterator[CostsHouse]:
    made = CostsHouse(tmp_path)
    yield made
    made.close()


def test_the_last_answer_is_the_one_the_cloud_would_have_given(house: CostsHouse) -> None:
    house.ask("easy", "easy", AB)
    [first] = rows(house.engine, "attempt")
    # Written later, found earlier: a database gives rows in any order that it likes.
    earlier = first | {"id": "0" * 32, "number": 9, "tokens_in": 1_000_000}
    with writing(house.engine) as connection:
        connection.execute(insert(TABLES.tables["attempt"]).values(**earlier))
    found = report(house.engine, house.settings, house.catalog, house.info)
    assert found.all_cloud_cost_usd is not None
    assert found.all_cloud_cost_usd < 0.01


def test_kinds_are_shown_as_they_are_called(
    house: CostsHouse, capsys: pytest.CaptureFixture[str]
) -> None:
    house.ask("[/b]kind", "easy", AB)
    print_report(report(house.engine, house.settings, house.catalog, house.info))
    assert "[/b]kind" in capsys.readouterr().out
