"""Passwords of broker and database from files, as containers are given their secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from config import secrets
from config.errors import ConfigurationError
from config.keys import read_private

HOLDS = "one line, the password alone"
PAIRS = (("broker_url", "broker_password_file"), ("database_url", "database_password_file"))
"""Settings of places, each with the setting of the file that has its password."""


def with_passwords(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the passwords of files put into the URLs that they belong to.

    Raises:
        ConfigurationError: a file cannot be read or is open to others, or its URL is missing or
            has another password.
    """
    found = dict(given)
    for url, file in PAIRS:
        if found.get(file) is not None:
            found[url] = _joined(found.get(url), Path(found[file]).expanduser().absolute(), url)
    return found


def read_password(path: Path, setting: str) -> str:
    """The password of a file that only its owner can read; the last line break is not part of it.

    Raises:
        ConfigurationError: the file cannot be read, is open to others, or holds something else.
    """
    password = read_private(path, setting, HOLDS).rstrip("\r\n")
    if not password or "\n" in password:
        said = "holds more than one line" if password else "is empty"
        raise ConfigurationError(f"{setting} {path} {said}: write {HOLDS}")
    secrets.remember(password)
    secrets.remember(quote(password, safe=""))
    return password


def _joined(url: object, path: Path, name: str) -> str:
    variable = f"UPTIER_{name.upper()}"
    setting = variable.replace("_URL", "_PASSWORD_FILE")
    if not isinstance(url, str) or "://" not in url:
        raise ConfigurationError(
            f"{setting} is set, and {variable} is no URL that it could belong to: set both or "
            "neither"
        )
    password = read_password(path, setting)
    parts = urlsplit(url)
    # Workers of a stack inherit the whole URL beside the name of the file.
    if parts.password is not None and unquote(parts.password) != password:
        raise ConfigurationError(
            f"{variable} has another password than {setting} {path}: leave one of them out"
        )
    user, _, place = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}").geturl()
