"""Workloads for projections of costs: how many calls a day, of what, and of how many tokens."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from config.errors import InputError
from config.load import HERE, read_toml, validated
from config.weights import Name, Strict

WORKLOADS = HERE / "workloads"

Part = Annotated[Decimal, Field(ge=0, le=1)]
"""A share between 0 and 1, exact."""


class Tokens(Strict):
    """The tokens of one call."""

    input: int = Field(ge=0, le=10**9)
    output: int = Field(default=0, ge=0, le=10**9)


class Workload(Strict):
    """Calls a day, and how they divide: by the kinds of ``mix``, or by ``tiers``."""

    name: str = ""
    description: str = ""
    days: int = Field(default=30, ge=1, le=36_500)
    iterations: int = Field(ge=1, le=10**9)
    """Calls a day."""
    mix: dict[str, Part] = {}
    """Shares of kinds; the profile's routing says where each of them goes."""
    tiers: dict[Name, Part] = {}
    """Shares of tiers, where they are known instead."""
    distribution: dict[Name, Part] = {}
    """Shares of tiers that somebody expects; shown beside those of the mix."""
    each: Tokens | None = None
    """The tokens of every call; absent: a kind's ``expected_tokens``."""
    output_share: Part = Decimal(0)
    """Of the ``expected_tokens``, which are not told apart; 0 prices all of them as input."""
    fallback: Part = Decimal("0.05")
    """Calls that begin on a local lane and are made on the API as well."""
    whole_calls: bool = False
    """Whether each kind's calls a day are rounded down to whole ones."""
    references: tuple[Name, ...] = ()
    """Models on which everything is priced, where the profile has them."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        if bool(self.mix) == bool(self.tiers):
            raise ValueError("a workload needs shares of kinds (mix) or of tiers: give one of them")
        for name in ("mix", "tiers", "distribution"):
            shares: dict[str, Decimal] = getattr(self, name)
            if shares and sum(shares.values()) != 1:
                raise ValueError(f"the shares of {name} add up to {sum(shares.values())}, not to 1")
        if self.tiers and self.each is None:
            raise ValueError("shares of tiers do not tell what is asked: give each = { input = N }")
        return self


def workload_names() -> list[str]:
    """The workloads that come with Uptier."""
    return sorted(path.stem for path in WORKLOADS.glob("*.toml"))


def load_workload(name: str, **given: Any) -> Workload:
    """A workload by its name or by the path of a ``.toml`` file, with fields ``given`` instead.

    Raises:
        InputError: there is none of that name.
        ConfigurationError: something in it is wrong.
    """
    path = Path(name) if name.endswith(".toml") else WORKLOADS / f"{name}.toml"
    if not path.is_file():
        raise InputError(
            f"workload {name!r} is unknown: choose one of {', '.join(workload_names())} or give "
            "the path of a .toml file"
        )
    fields = {"name": path.stem} | read_toml(path)
    return validated(Workload, fields | given, str(path))
