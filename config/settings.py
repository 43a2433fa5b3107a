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
from pydantic import Field, ValidationError, field_validator, model_validator
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
from config.passwords import with_passwords
from config.secrets import redact

BROKER_SCHEMES = ("redis", "rediss", "amqp", "amqps", "memory")
DATABASE_SCHEMES = ("sqlite", "postgresql", "postgresql+psycopg")


class Settings(BaseSettings):
    """Everything that may differ from one machine to the next."""

    model_config = SettingsConfigDict(env_prefix="UPTIER_", extra="forbid", frozen=True)

    profile: str = "laptop"
    """The catalog: a profile that comes with Uptier, or the path of a ``.toml`` file."""
    data_dir: Path = Field(default_factory=lambda: user_data_path("uptier"))
    """Ledger, files of the embedded broker, logs."""
    models_dir: Path = Field(default_factory=lambda: user_cache_path("uptier") / "models")
    """Weights, and what is known of them."""
    keys_file: Path | None = None
    """Where keys of providers stand that are not in the environment; lines ``NAME=value``."""
    broker_url: str | None = None
    """Redis, Valkey or RabbitMQ; absent: the embedded Valkey."""
    broker_password_file: Path | None = None
    """File of the broker's password, where the URL has none."""
    broker_ca_file: Path | None = None
    """PEM of the authorities that may sign the broker's certificate; absent: the system's."""
    broker_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the embedded Valkey; a free one is taken if absent."""
    database_url: str | None = None
    """PostgreSQL or SQLite; absent: SQLite in the data directory."""
    database_password_file: Path | None = None
    """File of the database's password, where the URL has none."""
    key_prefix: str = "uptier:"
    """Before every key in Redis or Valkey, and every name in RabbitMQ."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Of workers, and of everything that stays."""
    lease_s: float = Field(default=60, gt=0)
    """How long a worker may be silent before its work is given away."""
    max_deliveries: int = Field(default=3, ge=1)
    """Deliveries without an outcome after which a decision is dead."""
    stale_after_s: float = Field(default=30, gt=0)
    """Age at which the steward publishes an unsent or unclaimed message again."""
    leader_lease_s: float = Field(default=10, gt=0)
    """How long a steward may be silent before another takes over."""
    unserved_after_s: float = Field(default=600, gt=0)
    """After so long without any worker a lane's decisions move on."""
    start_timeout_s: float = Field(default=120, gt=0)
    """How long workers of a stack may take to load their models."""
    metrics: bool = True
    """Whether what happens is counted in the ledger; without it counters stand still."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Port on which a stack tells Prometheus; absent: none."""
    metrics_host: str = "127.0.0.1"
    """Address that metrics are told on."""
    task_events: bool = False
    """Whether workers send Celery's events always, not only while Flower asks for them."""
    log_format: Literal["console", "json"] = "console"
    """How logs are written: for eyes, or a line of JSON each."""
    traces_url: str | None = None
    """Where traces go, as OTLP over HTTP; absent: nothing is traced."""
    traces_share: float = Field(default=1, gt=0, le=1)
    """The share of decisions that are traced."""
    flower: bool = False
    """Whether a stack that is started runs Flower beside its workers; see docs/flower.md."""
    flower_address: str = Field(default="127.0.0.1", min_length=1)
    """Address that Flower listens on; beyond this machine it wants a login."""
    flower_port: int = Field(default=5555, ge=0, le=65535)
    """Port that Flower listens on; 0 takes a free one."""
    health_s: float = Field(default=60, ge=1)
    """How long a worker may get nowhere with work before it, or not be heard of, until a stack
    starts it anew."""
    log_max_mb: float = Field(default=20, gt=0)
    """Size at which a stack's log is cut; three older pieces of each are kept."""

    @model_validator(mode="before")
    @classmethod
    def _passwords_are_read(cls, given: Any) -> Any:
        return with_passwords(given) if isinstance(given, dict) else given

    @field_validator(
        "data_dir", "models_dir", "keys_file", "broker_password_file", "database_password_file"
    )
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

    @field_validator("traces_url")
    @classmethod
    def _collector_is_http(cls, value: str | None) -> str | None:
        return _known_scheme(value, ("http", "https"), "traces")

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
