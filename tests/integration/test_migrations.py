"""Machines that start together on a fresh ledger; lines for databases that do not answer."""

from __future__ import annotations

import multiprocessing
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from config.errors import LedgerError
from config.settings import Settings
from ledger.database import ledger_error, migrate, open_ledger
from tests.integration.conftest import not_here
from tests.integration.places import POSTGRES_URL, Place


def start(given: dict[str, Any], gate: Any, told: Any) -> None:
    gate.wait()
    try:
        migrate(Settings(**given))
    except Exception as error:
        told.put(repr(error))
    else:
        told.put("")


def test_those_who_start_at_once_make_the_tables_once(place: Place) -> None:
    settings = place.settings()
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    context = multiprocessing.get_context("spawn")
    gate, told = context.Barrier(4), context.Queue()
    starters = [context.Process(target=start, args=(given, gate, told)) for _ in range(4)]
    for starter in starters:
        starter.start()
    assert [told.get(timeout=60) for _ in starters] == [""] * 4
    for starter in starters:
        starter.join(timeout=90)


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ('FATAL:  password authentication failed for user "ann"', "UPTIER_DATABASE_PASSWORD_FILE"),
        ("connection refused", "check UPTIER_DATABASE_URL"),
        ('connection failed: FATAL:  database "none" does not exist', "create the database"),
        ('FATAL: no pg_hba.conf entry for host "10.0.0.1"', "let this host in"),
    ],
)
def test_what_a_server_says_brings_the_mend(said: str, mend: str) -> None:
    url = "postgresql://ann:secret@127.0.0.1:1/none"
    engine = open_ledger(Settings(database_url=url))
    line = str(ledger_error(engine, OperationalError("", {}, psycopg.OperationalError(said))))
    assert mend in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (lambda url: url.replace(":5432/", ":9/"), "start PostgreSQL, or correct host and port"),
        (lambda url: url.rpartition("/")[0] + "/no_such_database", "create the database"),
        (lambda url: url.replace("postgres@", "nobody_knows@"), "create the user"),
    ],
    ids=["port", "database", "role"],
)
def test_a_server_that_refuses_is_one_line(change: Any, mend: str) -> None:
    try:
        psycopg.connect(POSTGRES_URL, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        not_here(str(error).splitlines()[0])
    with pytest.raises(LedgerError, match=mend) as raised:
        migrate(Settings(database_url=change(POSTGRES_URL)))
    assert "\n" not in str(raised.value)
