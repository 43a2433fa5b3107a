"""Reads profiles from TOML into a catalog, with one line for whatever is wrong in them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from config.catalog import Catalog
from config.errors import ConfigurationError

HERE = Path(__file__).parent
M = TypeVar("M", bound=BaseModel)
PROFILES = HERE / "profiles"
KINDS = HERE / "kinds"
SPECIALITIES = HERE / "specialities"
PRESETS = HERE / "presets.toml"
JOINED = frozenset({"routing.rules", "routing.raises", "swarm.governor.rules"})
"""Lists to which every file adds: includes in their order, the profile last."""
Lookup = Callable[[str], str | None]
"""Gives the key of a name, or ``None`` where there is none."""


@dataclass(frozen=True)
class AbsentLane:
    """A lane of the profile that cannot be used here, and why."""

    lane: str
    tier: str
    reason: str
    down: bool = False
    """Whether it was taken out of service: then plans say so even where another answers for it."""


def profile_names() -> list[str]:
    """The profiles that come with Uptier."""
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def load_catalog(profile: str) -> Catalog:
    """The catalog of a profile, by its name or by the path of a ``.toml`` file.

    Raises:
        ConfigurationError: no such profile, or something in it is wrong.
    """
    path = Path(profile) if profile.endswith(".toml") else PROFILES / f"{profile}.toml"
    if not path.is_file():
        raise ConfigurationError(
            f"profile {profile!r} is unknown: choose one of {', '.join(profile_names())} "
            "or give the path of a .toml file"
        )
    data = read_toml(path)
    includes = data.pop("include", [])
    merged = read_toml(PRESETS)
    for name in includes:
        merged = _merge(merged, read_toml(_included(name, path)))
    merged = _merge(merged, data)
    merged["profile"] = path.stem
    return validated(Catalog, merged, str(path))


def validated(kind: type[M], data: Mapping[str, Any], place: str) -> M:
    """``data`` as a checked value; the first thing wrong becomes a one-line error."""
    try:
        checked = kind.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(one_line(error, place)) from None
    return checked


def one_line(error: ValidationError, place: str) -> str:
    """The first fault of a validation, with its value, as one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
    if first["type"] == "extra_forbidden" or (where.endswith("_url") and "://" not in shown):
        shown = ""  # a key under a wrong name, or a password in what is no URL
    spot = f"{place}: {where}" if where else place
    return f"{spot}: {message}{shown}; correct it and start again"


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary.

    Raises:
        ConfigurationError: unreadable, or not TOML; the message has line and column.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}; correct that line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def without_absent_lanes(
    catalog: Catalog, lookup: Lookup = os.environ.get
) -> tuple[Catalog, tuple[AbsentLane, ...]]:
    """The catalog less the lanes whose provider has no key here or whose model is disabled.

    Raises:
        ConfigurationError: no lane is left.
    """
    absent = []
    for name, lane in catalog.lanes.items():
        reason = _absence(catalog, lane.model, lookup)
        if reason is not None:
            absent.append(AbsentLane(lane=name, tier=lane.tier, reason=reason))
    if len(absent) == len(catalog.lanes):
        raise ConfigurationError(
            f"profile {catalog.profile!r} has no usable lane: "
            + "; ".join(f"{a.lane}: {a.reason}" for a in absent)
        )
    gone = {a.lane for a in absent}
    lanes = {name: lane for name, lane in catalog.lanes.items() if name not in gone}
    return catalog.model_copy(update={"lanes": lanes}), tuple(absent)


def _absence(catalog: Catalog, model_name: str, lookup: Lookup) -> str | None:
    model = catalog.models[model_name]
    if not model.enabled:
        return f"model {model_name} is disabled in profile {catalog.profile}"
    provider = catalog.providers.get(model.provider) if model.provider else None
    if provider and provider.api_key_env and not lookup(provider.api_key_env):
        return f"{provider.api_key_env} is not set"
    return None


def _included(name: str, profile: Path) -> Path:
    files = {p.stem: p for folder in (SPECIALITIES, KINDS) for p in folder.glob("*.toml")}
    if not isinstance(name, str) or name not in files:
        known = ", ".join(sorted(files))
        raise ConfigurationError(f"{profile}: include {name!r} is unknown: choose from {known}")
    return files[name]


def _merge(base: dict[str, Any], over: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """``over`` laid upon ``base``: tables are merged, lists of rules joined, all else replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merge(below, value, f"{place}{key}.")
        elif place + key in JOINED and isinstance(below, list) and isinstance(value, list):
            merged[key] = [*below, *value]
        else:
            merged[key] = value
    return merged
