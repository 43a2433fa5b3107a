"""Settings from the environment (``UPTIER_*``) and ``uptier.toml``; the environment wins."""

from __future__ import annotations

import os
import ssl
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from config.catalog import Catalog
from config.errors import ConfigurationError
from config.keys import find_key
from config.load import AbsentLane, load_catalog, one_line, without_absent_lanes
from config.secrets import redact

BROKER_SCHEMES = ("redis", "rediss", "amqp", "amqps", "memory")
DATABASE_SCHEMES = ("sqlite", "postgresql", "postgresql+psycopg")


class Settings(BaseSettings):
    """Everything that may differ from one machine to the next."""

    model_config = SettingsConfigDict(env_prefix="UPTIER_", extra="forbid", frozen=True)

    profile: str = "laptop"
    data_dir: Path = Field(default_factory=lambda: user_data_path("uptier"))
    models_dir: Path = Field(default_factory=lambda: user_cache_path("uptier") / "models")
    keys_file: Path | None = None
    """Where keys of providers stand that are not in the environment; see config/keys.py."""
    broker_url: str | None = None
    """Absent: the embedded Valkey."""
    broker_ca_file: Path | None = None
    """PEM of the authorities that may sign the broker's certificate; absent: the system's."""
    broker_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the embedded Valkey; a free one is taken if absent."""
    database_url: str | None = None
    """Absent: SQLite in the data directory."""
    key_prefix: str = "uptier:"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    lease_s: float = Field(default=60, gt=0)
    max_deliveries: int = Field(default=3, ge=1)
    stale_after_s: float = Field(default=30, gt=0)
    """Age at which the steward publishes an unsent or unclaimed message again."""
    leader_lease_s: float = Field(default=10, gt=0)
    unserved_after_s: float = Field(default=600, gt=0)
    """After so long without any worker a lane's decisions move on."""
    start_timeout_s: float = Field(default=120, gt=0)

    @field_validator("data_dir", "models_dir", "keys_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("broker_url")
    @classmethod
    def _broker_is_known(cls, value: str | None) -> str | None:
        if value is not None and "ssl_" in urlsplit(value).query:
            raise ValueError("certificates are always verified: drop ssl_... from the URL")
        return _known_scheme(value, BROKER_SCHEMES, "broker")

    @field_validator("broker_ca_file")
    @classmethod
    def _authorities_can_be_read(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        path = value.expanduser().absolute()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except OSError as error:  # SSLError is one
            raise ValueError(f"not a readable PEM file of certificates ({error})") from None
        return path

    @field_validator("database_url")
    @classmethod
    def _database_is_known(cls, value: str | None) -> str | None:
        return _known_scheme(value, DATABASE_SCHEMES, "database")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the file."""
        path = settings_file()
        toml = TomlConfigSettingsSource(settings_cls, toml_file=path)
        return init_settings, env_settings, toml

    @cached_property
    def catalog(self) -> Catalog:
        """The profile's catalog less the lanes that cannot be used here."""
        return self._usable[0]

    @property
    def absent_lanes(self) -> tuple[AbsentLane, ...]:
        """The lanes of the profile that cannot be used here, each with its reason."""
        return self._usable[1]

    @cached_property
    def _usable(self) -> tuple[Catalog, tuple[AbsentLane, ...]]:
        return without_absent_lanes(
            load_catalog(self.profile), lambda name: find_key(name, self.keys_file)
        )

    @property
    def ledger_url(self) -> str:
        """Where the ledger lies, as an SQLAlchemy URL."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir / 'ledger.db'}"
        if self.database_url.startswith("postgresql://"):
            return "postgresql+psycopg://" + self.database_url.removeprefix("postgresql://")
        return self.database_url

    @property
    def stack_dir(self) -> Path:
        """Where the embedded stack keeps its state and logs."""
        return self.data_dir / "stack"


def settings_file() -> Path | None:
    """``$UPTIER_CONFIG``, or ``uptier.toml`` in the current directory if there is one."""
    named = os.environ.get("UPTIER_CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigurationError(f"UPTIER_CONFIG={named!r} is not a file: correct the path")
        return Path(named)
    here = Path("uptier.toml")
    return here if here.is_file() else None


def load_settings(**given: Any) -> Settings:
    """The settings in force; ``None`` among the arguments means not given.

    Raises:
        ConfigurationError: a setting is unknown or malformed, named in one line.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**chosen)
    except ValidationError as error:
        raise ConfigurationError(redact(one_line(error, "setting"))) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{settings_file()} is not valid TOML: {error}; correct that line"
        ) from None


def _known_scheme(value: str | None, schemes: tuple[str, ...], what: str) -> str | None:
    if value is None:
        return None
    if urlsplit(value).scheme not in schemes:
        raise ValueError(f"{what} scheme must be one of {', '.join(schemes)}")
    try:
        urlsplit(value).port  # noqa: B018 - parsed only when asked for
    except ValueError:
        raise ValueError(
            f"{what} port must be a number up to 65535; a / or @ of the password is written %2F or "
            "%40"
        ) from None
    return value
