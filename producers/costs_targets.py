"""Targets beside what was measured: met, missed, or not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum

from pydantic import BaseModel

from config.targets import Targets
from ledger.spending import Critics, Overruns
from ledger.usage import Role
from producers.costs_report import savings_share, usd_of
from producers.costs_sums import DAY_US, Sums, Totals

WEEK_DAYS = 7


class Word(StrEnum):
    """How a target stands."""

    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


class Unit(StrEnum):
    """What a target is measured in."""

    USD = "usd"
    SHARE = "share"
    MS = "ms"
    COUNT = "count"


class Held(BaseModel):
    """One target. ``bound`` is how the measured value has to stand to it: < <= > or >=.

    ``of`` is how many calls, decisions or budgets it was measured on.
    """

    name: str
    unit: Unit
    bound: str
    target: float
    measured: float | None
    of: int
    word: Word
    note: str = ""


class ApiUse(BaseModel):
    """Questions that a call answered: on the API because their plan began there, or because local
    lanes failed them; shares are of all ``answered``, and of those that began locally."""

    answered: int
    routed: int
    routed_share: float | None
    fell_back: int
    fell_back_share: float | None


class Check(BaseModel):
    """All targets, and where questions went."""

    source: str
    since: str
    reference_model: str | None
    targets: list[Held]
    api: ApiUse
    met: bool
    """Whether none is missed; what is not measured is not missed."""


BOUNDS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda measured, target: measured < target,
    "<=": lambda measured, target: measured <= target,
    ">": lambda measured, target: measured > target,
    ">=": lambda measured, target: measured >= target,
}


def hold(targets: Targets, totals: Totals, over: Overruns, said: Critics) -> list[Held]:
    """Hold sums with the price of one reference model, or none, to the targets.

    Cost and savings are of all calls, with unknown charges at their most; what is said of
    quality, time and place is of questions alone.
    """
    asked, every = totals.role(Role.QUESTION), totals.everything
    most = every.cost + every.unknown
    weeks = _weeks(totals)
    api = every.api[0] if every.api else None
    local = asked.answers - asked.routed
    return [
        _held("cost a week", Unit.USD, "<", float(targets.cost_per_week_usd),
              usd_of(most / weeks), totals.records, _cost_note(every, weeks)),
        _held("savings", Unit.SHARE, ">", targets.savings, savings_share(most, api),
              totals.records, "" if api is not None else "no reference model"),
        _held("budgets overrun", Unit.COUNT, "<=", 0, over.exceeded, over.bounded,
              ", ".join(over.scopes)),
        _held("latency", Unit.MS, "<", targets.latency_ms,
              _mean(asked.latency_us / 1000, asked.timed), asked.timed, _waiting(asked)),
        _held("pass rate", Unit.SHARE, ">=", targets.pass_rate,
              _mean(asked.passed, asked.judged), asked.judged),
        _held("fell back to the API", Unit.SHARE, "<", targets.fallback,
              _mean(asked.fell_back, local), local),
        _held("local calls", Unit.SHARE, ">=", targets.local,
              _mean(asked.calls - asked.api_calls, asked.calls), asked.calls),
        _held("score", Unit.SHARE, ">", targets.score, _mean(asked.score, asked.scored),
              asked.scored),
        _held("critics said yes", Unit.SHARE, ">", targets.critique, _mean(said.yes, said.said),
              said.said),
    ]  # fmt: skip


def is_met(held: Sequence[Held]) -> bool:
    """Whether no target is missed; what is not measured is not missed."""
    return all(one.word is not Word.MISSED for one in held)


def api_use(totals: Totals) -> ApiUse:
    """Where questions were answered, apart by why they went to the API."""
    asked = totals.role(Role.QUESTION)
    return ApiUse(
        answered=asked.answers, routed=asked.routed,
        routed_share=_mean(asked.routed, asked.answers), fell_back=asked.fell_back,
        fell_back_share=_mean(asked.fell_back, asked.answers - asked.routed),
    )  # fmt: skip


def _held(
    name: str, unit: Unit, bound: str, target: float, measured: float | None, of: int,
    note: str = "",
) -> Held:  # fmt: skip
    if not of or measured is None:
        return Held(name=name, unit=unit, bound=bound, target=target, measured=None, of=of,
                    word=Word.NOT_MEASURED, note=note)  # fmt: skip
    word = Word.MET if BOUNDS[bound](measured, target) else Word.MISSED
    return Held(name=name, unit=unit, bound=bound, target=target, measured=measured, of=of,
                word=word, note=note)  # fmt: skip


def _weeks(totals: Totals) -> Decimal:
    """What the records span in weeks; less than one counts as one, nothing is drawn out."""
    if totals.first is None or totals.last is None:
        return Decimal(1)
    return max(Decimal(1), Decimal(totals.last - totals.first) / (WEEK_DAYS * DAY_US))


def _cost_note(every: Sums, weeks: Decimal) -> str:
    parts = []
    if weeks > 1:
        parts.append(f"the mean of {weeks:.1f} weeks")
    if every.unknown_charges:
        parts.append(f"{every.unknown_charges} unknown charges at their most")
    return ", ".join(parts)


def _waiting(asked: Sums) -> str:
    waiting = _mean(asked.waiting_us / 1000, asked.timed)
    return "" if waiting is None else f"and {waiting:,.1f} ms in the queue"


def _mean(total: float, of: int) -> float | None:
    return total / of if of else None
