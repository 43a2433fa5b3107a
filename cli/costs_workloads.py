"""The workloads that ``uptier costs project`` is asked for, with what its options change."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from config.errors import InputError
from config.load import validated
from config.workloads import Workload, load_workload

USUAL = ("light", "medium", "heavy")
OWN = "own"
LONGEST_DAYS = 36_500


@dataclass(frozen=True)
class Wish:
    """The options as they were given."""

    names: tuple[str, ...]
    mix: str | None
    iterations: int | None
    tokens: str | None
    output_share: float | None
    fallback: float | None
    whole_calls: bool | None
    days: float | None

    @property
    def changes(self) -> bool:
        """Whether anything but the days is asked for."""
        given = (self.mix, self.iterations, self.tokens, self.output_share, self.fallback,
                 self.whole_calls)  # fmt: skip
        return bool(self.names) or any(one is not None for one in given)

    @property
    def span(self) -> Decimal | None:
        """The days that usage covers, where they are given.

        Raises:
            InputError: they are none.
        """
        if self.days is None:
            return None
        if not 0 < self.days <= LONGEST_DAYS:
            raise InputError(f"--days {self.days:g} must lie between 0 and {LONGEST_DAYS:,}")
        return Decimal(str(self.days))

    def fields(self) -> dict[str, Any]:
        """What is given of a workload's own fields."""
        given = {
            "iterations": self.iterations, "days": self.days, "whole_calls": self.whole_calls,
            "output_share": self.output_share, "fallback": self.fallback,
            "each": None if self.tokens is None else _tokens(self.tokens),
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}


def workloads_of(wish: Wish) -> list[Workload]:
    """The workloads that are named, or the mix of one's own; the daemon's three by default.

    Raises:
        InputError: an option is malformed, or does not go with another.
        ConfigurationError: something in a workload is wrong.
    """
    if wish.mix is None:
        return [load_workload(name, **wish.fields()) for name in wish.names or USUAL]
    if wish.names:
        raise InputError("--mix is a workload of its own: name none beside it")
    if wish.iterations is None:
        raise InputError("--mix needs --iterations: say how many calls a day")
    fields = {"name": OWN, "description": "a mix of its own", "mix": _mix(wish.mix)}
    return [validated(Workload, fields | wish.fields(), "--mix")]


def _mix(text: str) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for part in text.split(","):
        kind, _, share = part.partition("=")
        kind = kind.strip()
        try:
            value = Decimal(share.strip())
        except InvalidOperation:
            value = Decimal("NaN")
        if not kind or not value.is_finite() or kind in found:
            raise InputError(f"--mix {text!r} needs KIND=SHARE once for each kind, with commas")
        found[kind] = value
    return found


def _tokens(text: str) -> dict[str, int]:
    tokens_in, plus, tokens_out = text.partition("+")
    parts = (tokens_in, tokens_out if plus else "0")
    if not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise InputError(f"--tokens {text!r} must be IN or IN+OUT, such as 800 or 2000+500")
    return {"input": int(parts[0]), "output": int(parts[1])}
