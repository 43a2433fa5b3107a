"""Who may look at Flower, and from where."""

from __future__ import annotations

from config.errors import ConfigurationError
from config.hosts import is_loopback
from config.keys import find_key
from config.settings import Settings

LOGIN = "UPTIER_FLOWER_LOGIN"
"""The variable, or the name in the file of keys, of ``user:password``."""


def flower_login(settings: Settings) -> str | None:
    """The login that Flower asks for, as ``user:password``; ``None`` if it asks for none.

    Raises:
        ConfigurationError: it is malformed, or absent where Flower can be reached from elsewhere.
    """
    login = find_key(LOGIN, settings.keys_file)
    if login is None:
        if not is_loopback(settings.flower_address):
            raise ConfigurationError(
                f"Flower on {settings.flower_address!r} lets others look, and there is no login: "
                f"set {LOGIN}=user:password, or bind 127.0.0.1"
            )
        return None
    user, colon, password = login.partition(":")
    if not (user and colon and password and login.isascii() and login.isprintable()):
        raise ConfigurationError(
            f"{LOGIN} is not user:password in printable ASCII: correct it (it is not shown)"
        )
    return login
