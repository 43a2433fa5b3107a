"""Migrations on SQLite, forwards and back, with rows that refer to each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import alembic.command
import pytest
from sqlalchemy import inspect

from ledger.database import _alembic_config, migrate
from tests.unit.audited_house import House
from tests.unit.ledgers import rows


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    opened = House(tmp_path)
    yield opened
    opened.engine.dispose()


def test_labels_and_certificates_can_be_undone_where_there_are_attempts(house: House) -> None:
    asked = house.ask("unaudited")
    house.settle(asked, ("A", 0.9))
    attempts = rows(house.engine, "attempt")
    config = _alembic_config()
    with house.engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "0004")
    assert "label" not in inspect(house.engine).get_table_names()
    columns = {c["name"] for c in inspect(house.engine).get_columns("decision")}
    assert "propensity" not in columns
    migrate(house.settings)
    assert rows(house.engine, "attempt") == attempts
    assert house.row(asked)["answer"] == "A"
