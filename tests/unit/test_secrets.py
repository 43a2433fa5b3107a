"""Keys and passwords are hidden wherever text is written."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from config import secrets
from config.broker import shown
from config.errors import BackendError
from config.keys import find_key
from config.settings import Settings
from ledger.database import ledger_place

KEY = "team-key-93b1f0"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(secrets, "_known", frozenset())
    factory, hooks = logging.getLogRecordFactory(), (sys.excepthook, secrets.threading.excepthook)
    yield
    logging.setLogRecordFactory(factory)
    sys.excepthook, secrets.threading.excepthook = hooks


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("redis://:pa55word@host:6379/0 is away", "redis://:***@host:6379/0 is away"),
        ("amqps://user:p@ss/w@host/v", "amqps://user:***@host/v"),
        ("'postgresql+psycopg://u:p@h/db'", "'postgresql+psycopg://u:***@h/db'"),
        ("http://u:p@proxy:3128", "http://u:***@proxy:3128"),
        ("https://host/x?api_key=abc&n=1", "https://host/x?api_key=***&n=1"),
        ("postgresql://h/db?user=u&password=secret", "postgresql://h/db?user=u&password=***"),
        ("key sk-ant-api03-AbC_d-1.", "key ***."),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer ***"),
        ("OPENAI sk-proj-0123456789abcdef", "OPENAI ***"),
    ],
)
def test_secrets_of_known_make_are_hidden(text: str, clean: str) -> None:
    assert secrets.redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "broker redis://host:6379/0 does not answer",
        "tier1@machine: ready, task-1234567890123456789",
        "http://127.0.0.1:8080/v1 at 12:30, someone@example.org",
        "label CONTINUE:done",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert secrets.redact(text) == text


def test_a_key_that_was_found_is_hidden_whatever_it_looks_like() -> None:
    assert secrets.redact(f"got {KEY}!") == f"got {KEY}!"
    find_key("SOME_KEY", None, {"SOME_KEY": KEY})
    assert secrets.redact(f"got {KEY}!") == "got ***!"
    assert str(BackendError(f"HTTP 400: bad key {KEY}")) == "HTTP 400: bad key ***"


def test_no_address_that_is_shown_has_a_password() -> None:
    hidden = "postgresql+psycopg://u:***@h/db?password=***&sslmode=require"
    given = "postgresql+psycopg://u:mine@h/db?password=mine&sslmode=require"
    assert ledger_place(Settings(database_url=given)) == hidden
    assert (
        shown("rediss://u:mine@[::1]:6379/0?password=mine")
        == "rediss://u@[::1]:6379/0?password=***"
    )


def test_a_value_too_short_to_be_a_secret_leaves_words_alone() -> None:
    secrets.remember("a")
    secrets.remember("")
    secrets.remember(None)
    assert secrets.redact("a banana") == "a banana"


def test_every_handler_of_every_logger_gets_clean_records() -> None:
    secrets.remember(KEY)
    secrets.install()
    secrets.install()
    stream = io.StringIO()
    log, handler = logging.getLogger("some.library"), logging.StreamHandler(stream)
    log.addHandler(handler)
    try:
        log.warning("sent %s to %s", KEY, "redis://:hidden@h")
        log.warning("100 % of %(key)s", {"key": KEY})
        log.warning("too %s few %s", KEY)
        try:
            raise ValueError(f"refused {KEY}")
        except ValueError:
            log.exception("it failed")
    finally:
        log.removeHandler(handler)
    said = stream.getvalue()
    assert KEY not in said
    assert "hidden" not in said
    assert "sent *** to redis://:***@h" in said
    assert "ValueError: refused ***" in said
    assert "Traceback" in said


def test_a_process_dies_without_telling() -> None:
    code = (
        "import threading\nfrom config import secrets\nsecrets.install()\n"
        f"secrets.remember({KEY!r})\n"
        f"def fail(): raise ValueError('of ' + '{KEY[:5]}' + '{KEY[5:]}')\n"
        "t = threading.Thread(target=fail); t.start(); t.join()\nfail()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert KEY not in done.stderr
    assert done.stderr.count("ValueError: of ***") == 2
