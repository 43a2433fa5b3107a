"""Secrets as files: passwords of broker and database, and single keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from config.broker import _diagnosis
from config.errors import ConfigurationError
from config.gateway import KEY_VARIABLE, take_plain_key
from config.keys import find_key
from config.secrets import redact
from config.settings import load_settings
from ledger.database import ledger_error
from workers.launch import process_environment

PASSWORD = "p@ss/w:rd?"
QUOTED = "p%40ss%2Fw%3Ard%3F"
KEY = "ANTHROPIC_API_KEY"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://broker:6379/0", f"redis://:{QUOTED}@broker:6379/0"),
        ("rediss://uptier@broker/1", f"rediss://uptier:{QUOTED}@broker/1"),
        ("amqp://uptier@broker//", f"amqp://uptier:{QUOTED}@broker//"),
        (f"redis://:{QUOTED}@broker", f"redis://:{QUOTED}@broker"),
    ],
)
def test_the_brokers_password_is_put_into_its_url(secret: Path, url: str, whole: str) -> None:
    settings = load_settings(broker_url=url, broker_password_file=secret)
    assert settings.broker_url == whole
    assert redact(f"says {PASSWORD}") == "says ***"


def test_the_databases_password_comes_from_the_environment_too(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPTIER_DATABASE_URL", "postgresql://uptier@database/uptier?sslmode=require")
    monkeypatch.setenv("UPTIER_DATABASE_PASSWORD_FILE", str(secret))
    url = load_settings().ledger_url
    assert url == f"postgresql+psycopg://uptier:{QUOTED}@database/uptier?sslmode=require"


def test_workers_of_a_stack_that_inherit_both_agree_with_themselves(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(broker_url="redis://broker", broker_password_file=secret)
    for name, value in process_environment(settings).items():
        if name.startswith("UPTIER_"):
            monkeypatch.setenv(name, value)
    assert load_settings().broker_url == settings.broker_url


@pytest.mark.parametrize(
    ("text", "mode", "url", "words"),
    [
        (PASSWORD, 0o644, "redis://broker", "chmod 600"),
        ("", 0o600, "redis://broker", "is empty"),
        ("one\ntwo\n", 0o600, "redis://broker", "more than one line"),
        (PASSWORD, 0o600, None, "set both or neither"),
        (PASSWORD, 0o600, "redis://:other@broker", "another password"),
    ],
)
def test_what_is_wrong_with_a_password_is_one_line_without_it(
    secret: Path, text: str, mode: int, url: str | None, words: str
) -> None:
    secret.write_text(text)
    secret.chmod(mode)
    with pytest.raises(ConfigurationError) as error:
        load_settings(broker_url=url, broker_password_file=secret)
    said = str(error.value)
    assert words in said
    assert "\n" not in said
    assert PASSWORD not in said
    assert "UPTIER_BROKER_PASSWORD_FILE" in said


def test_a_key_may_have_a_file_of_its_own(secret: Path) -> None:
    secret.write_text("sk-of-its-own\n")
    environ = {f"{KEY}_FILE": str(secret)}
    assert find_key(KEY, None, environ) == "sk-of-its-own"
    assert find_key(KEY, None, {**environ, KEY: "sk-environment"}) == "sk-environment"
    secret.write_text("\n")
    assert find_key(KEY, None, environ) is None
    secret.write_text(f"{KEY}=sk-with a name")
    with pytest.raises(ConfigurationError, match="the key alone"):
        find_key(KEY, None, environ)
    secret.unlink()
    with pytest.raises(ConfigurationError, match=f"{KEY}_FILE"):
        find_key(KEY, None, environ)


def test_the_gateways_key_may_too(secret: Path) -> None:
    assert take_plain_key({f"{KEY_VARIABLE}_FILE": str(secret)}) == PASSWORD


def test_a_file_of_root_that_our_group_may_read_is_as_kubernetes_mounts_it(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of root")
    secret.chmod(0o440)
    os.chown(secret, 0, 12345)
    environ = {f"{KEY}_FILE": str(secret)}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        find_key(KEY, None, environ)
    monkeypatch.setattr(os, "getgroups", lambda: [12345])
    assert find_key(KEY, None, environ) == PASSWORD
    secret.chmod(0o460)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        find_key(KEY, None, environ)


def test_who_is_refused_is_told_of_the_file_that_the_password_may_come_from() -> None:
    engine = create_engine("sqlite://")
    for said in ("password authentication failed for user", "no password supplied"):
        error = ledger_error(engine, DBAPIError("", None, Exception(said)))
        assert "the file of UPTIER_DATABASE_PASSWORD_FILE" in str(error)
        assert str(error).count("; ") == 1  # the doctor parts what was said from its mend there
    line = _diagnosis("redis://broker", Exception("WRONGPASS invalid username-password pair"))
    assert "the file of UPTIER_BROKER_PASSWORD_FILE" in line
