"""Keys of the gateway: who may ask, how private they are, and what they may spend."""

from __future__ import annotations

import hashlib
import os
import secrets as randomness
import tomllib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from config import secrets
from config.errors import ConfigurationError
from config.keys import read_key, read_private
from config.load import validated
from config.prices import Dollars
from config.weights import Name, Strict

KEY_VARIABLE = "UPTIER_GATEWAY_KEY"
"""A single key without a budget, for those who need no file."""
OWN_NAME = "gateway"
"""What the caller with that key is called."""
PREFIX = "sk-uptier-"
KEY_BYTES = 32

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ApiKey(Strict):
    """A key of the gateway. Only its SHA-256 is kept: keys are random, so that it gives nothing
    away, and a slow hash would only slow every request."""

    sha256: Digest
    """Of the key, in hexadecimal; ``uptier serve --new-key NAME`` prints it."""
    budget_usd: Dollars | None = None
    """What its paid calls may cost all told, over all runs of a ledger."""
    per_day_usd: Dollars | None = None
    """And on a day of the calendar (UTC)."""
    privacy: Literal["low", "medium", "high", "maximum"] = "low"
    """How private its requests are at least."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Requests under way at once; absent: as many as the gateway bears."""


class KeysFile(Strict):
    """What a keys file of the gateway holds: keys by the names of their owners."""

    keys: dict[Name, ApiKey] = Field(min_length=1)
    """By the names of their owners."""


def load_keys(path: Path | None, plain: str = "") -> dict[str, ApiKey]:
    """The keys that are let in, by the names of their owners; none: everybody is.

    ``plain`` is a key by itself, which is called ``gateway``.

    Raises:
        ConfigurationError: the file is missing, malformed, or open to other users.
    """
    keys = {} if path is None else dict(_read(path).keys)
    if plain:
        if OWN_NAME in keys:
            raise ConfigurationError(
                f"{KEY_VARIABLE} is set and {path} has a key of the name {OWN_NAME!r}: rename it"
            )
        keys[OWN_NAME] = ApiKey(sha256=digest(plain))
    return keys


def take_plain_key(environ: MutableMapping[str, str] = os.environ) -> str:
    """The key of the environment, which loses it, so that no child process inherits it; else that
    of the file which ``UPTIER_GATEWAY_KEY_FILE`` names.

    Raises:
        ConfigurationError: that file is missing, or open to other users.
    """
    plain = environ.pop(KEY_VARIABLE, "").strip() or read_key(KEY_VARIABLE, environ)
    secrets.remember(plain)
    return plain


def digest(key: str) -> str:
    """The SHA-256 of a key as hex digits, as a keys file holds it."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """A key that nobody can guess."""
    return PREFIX + randomness.token_urlsafe(KEY_BYTES)


def _read(path: Path) -> KeysFile:
    text = read_private(path, "--keys", "tables [keys.NAME] with a sha256")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"--keys {path} is not valid TOML: {error}; correct that line"
        ) from None
    found = validated(KeysFile, data, f"--keys {path}")
    known: dict[str, str] = {}
    for name, key in found.keys.items():
        if key.sha256 in known:
            raise ConfigurationError(
                f"--keys {path}: {known[key.sha256]} and {name} have the same key: give each one"
            )
        known[key.sha256] = name
    return found
