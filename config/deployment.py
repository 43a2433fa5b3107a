"""The secrets that docker-compose.yml mounts, and what each has to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.errors import ConfigurationError
from config.keys import read_private

LEAST_CHARS = 12
MAKES = "run `sh deploy/secrets.sh`, which makes what is missing"


@dataclass(frozen=True)
class Secret:
    """A file of a secret: what it is, and what is wrong with its text."""

    file: str
    what: str
    fault: Callable[[str], str | None]


def _password(text: str) -> str | None:
    if not text:
        return "is empty"
    if len(text.split()) > 1:
        return "holds more than one word"
    return f"has fewer than {LEAST_CHARS} characters" if len(text) < LEAST_CHARS else None


def _broker_password(text: str) -> str | None:
    # It stands between quotes in the server's configuration, where both have a meaning.
    return 'holds a " or a \\' if {'"', "\\"} & set(text) else _password(text)


def _login(text: str) -> str | None:
    user, colon, password = text.partition(":")
    if not (text.isascii() and text.isprintable()):
        return "has characters other than printable ASCII"
    return _password(password) if user and colon else "is not user:password"


def _optional(text: str) -> str | None:
    return _password(text) if text else None


SECRETS = (
    Secret("broker_password", "the broker's password", _broker_password),
    Secret("database_password", "the database's password", _password),
    Secret("gateway_key", "the gateway's key", _password),
    Secret("flower_login", "Flower's login", _login),
    Secret("grafana_password", "the Grafana password", _password),
    Secret("anthropic_api_key", "the key of the cloud, empty for none", _optional),
)


def check_secrets(directory: Path) -> list[str]:
    """Look at every secret of a deployment; a line for each, without what it holds.

    Raises:
        ConfigurationError: one is missing, malformed, or open to other users; names it.
    """
    return [f"{secret.file}: {_looked_at(directory / secret.file, secret)}" for secret in SECRETS]


def _looked_at(path: Path, secret: Secret) -> str:
    if not _is_there(path):
        raise ConfigurationError(f"{secret.what} is missing: {path} is not there; {MAKES}")
    text = read_private(path, secret.what, "one line").strip()
    fault = secret.fault(text)
    if fault is not None:
        raise ConfigurationError(f"{secret.what} {fault}: correct {path}, or delete it and {MAKES}")
    return "present" if text else "empty: plans go no further than the local tiers"


def _is_there(path: Path) -> bool:
    """Whether there is a file; one that may not be looked at is: who reads it says why."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
