"""Where a provider is and how it is entered: its URL and key, checked before anything is asked."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from config.catalog import Model, Provider
from config.errors import BackendError, ConfigurationError
from workers.backends.http_errors import refuses_key

CHECK_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Defaults:
    """What a kind of service takes where the catalog says nothing.

    ``key_name`` is the variable of the key; without one no key is needed. ``url_name`` is the
    variable in which the service's own tools look for its address.
    """

    provider: str
    key_name: str | None = None
    url_name: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Access:
    """A provider as it is reached. ``url`` is ``None`` where the SDK knows its own."""

    name: str
    url: str | None
    key_name: str | None
    key: str | None = field(repr=False)
    local: bool

    @property
    def host(self) -> str:
        """The host, for words to people."""
        return urlsplit(self.url or "").hostname or self.name


def key_name(provider: Provider | None, defaults: Defaults) -> str | None:
    """The name under which the provider's key is looked for; ``None`` if it takes none."""
    return (provider.api_key_env if provider else None) or defaults.key_name


def access(model: Model, provider: Provider | None, defaults: Defaults, key: str | None) -> Access:
    """How to reach a model's provider.

    Raises:
        ConfigurationError: a key is missing or malformed, or so is the URL.
    """
    name = model.provider or defaults.provider
    wanted = key_name(provider, defaults)
    if wanted is not None and not key:
        raise ConfigurationError(f"{name} needs a key: set {wanted}")
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"the key in {wanted} has characters that no key has: correct it")
    return Access(
        name=name,
        url=_base_url(provider, defaults),
        key_name=wanted,
        key=key or None,
        local=provider.local if provider else False,
    )


def judge_look(reached: Access, status: int | None, found: BackendError) -> None:
    """What a failed look at the provider means at a worker's start.

    A provider that is away is only warned of: it may be back before it is needed.

    Raises:
        ConfigurationError: it refuses the key.
    """
    if refuses_key(status, found):
        what = f"the key in {reached.key_name}" if reached.key_name else "calls without a key"
        mend = "correct it" if reached.key_name else "name its variable as api_key_env"
        raise ConfigurationError(f"{reached.name} refuses {what}: {mend}") from None
    log.warning(
        "%s at %s does not answer as it should: %s; look at the network, its base URL and "
        "its status page, calls are made all the same",
        reached.name, reached.host, found,
    )  # fmt: skip


def _base_url(provider: Provider | None, defaults: Defaults) -> str | None:
    """The provider's URL: from its own variable, from the catalog, or as its tools find it."""
    own = (provider.base_url_env if provider else None) or ""
    common = defaults.url_name or ""
    places = (
        (own, os.environ.get(own)),
        ("base_url", provider.base_url if provider else None),
        (common, os.environ.get(common)),
        ("base_url", defaults.url),
    )
    for place, url in places:
        if url:
            if not is_http(url):
                raise ConfigurationError(
                    f"{place} = {url!r} is not an http or https URL: correct it"
                )
            return url
    return None


def is_http(url: str) -> bool:
    """Whether a URL is whole and one that can be asked."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False
