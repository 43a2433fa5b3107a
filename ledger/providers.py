"""Circuit breakers and rate limits of providers, kept in the ledger so that all workers share them.

A breaker (Nygard, "Release It!", 2007) opens after outages in a row, at once when the account is
used up, and lets a single call through when its time is over: a success closes it, another outage
opens it again for twice as long. The rate limit hands out evenly spaced slots, as the generic
cell rate algorithm does (ITU-T I.371); who has to wait keeps its slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, select, update

from config.catalog import Catalog, Provider
from config.load import AbsentLane
from ledger.clock import SECOND
from ledger.database import insert_or_ignore, reading
from ledger.tables import TABLES

PROVIDERS = TABLES.tables["provider"]
PROBE_US = 120 * SECOND
"""A probe whose worker died frees its place after this time."""
PROBE_WAIT_US = 2 * SECOND
BREAKER_STATES = ("closed", "open", "half-open")


class Verdict(StrEnum):
    """What a call says of its provider."""

    WELL = "well"
    OUTAGE = "outage"
    QUOTA = "quota"
    AWAY = "away"
    """It wants to be left alone for long: ``pause_s``."""


@dataclass(frozen=True)
class Health:
    """What a finished call says of its provider, and how long the provider wants to be spared."""

    provider: str
    policy: Provider
    verdict: Verdict
    reason: str = ""
    pause_s: float = 0.0


@dataclass(frozen=True)
class Admission:
    """Whether a call may go out now.

    ``open_until`` is set while the breaker is open, ``again_at`` when the call only has to wait;
    then ``slot_at`` is the slot that is kept for it, if it waits for the rate limit.
    """

    open_until: int | None = None
    again_at: int | None = None
    slot_at: int | None = None
    reason: str = ""

    @property
    def granted(self) -> bool:
        """Whether the call may go out."""
        return self.open_until is None and self.again_at is None


class ProviderState(BaseModel):
    """A provider as ``uptier status`` shows it; times in seconds from now."""

    name: str
    breaker: str
    failures: int
    reopens_in_s: float | None
    paused_for_s: float | None
    reason: str


def admit(
    connection: Connection, name: str, policy: Provider, slot_at: int | None, now: int
) -> Admission:
    """Ask for one call. ``slot_at`` is the slot that an earlier admission kept for it."""
    row = _row(connection, name)
    if row.open_until is not None and now < row.open_until:
        return Admission(open_until=row.open_until, reason=_closed(row, now))
    if now < row.paused_until:
        return Admission(again_at=row.paused_until, reason=f"{name} asked to wait")
    if row.open_until is not None:
        return _try_again(connection, row, now)
    if policy.requests_per_minute is None:
        return Admission()
    interval = int(60 * SECOND / policy.requests_per_minute)
    # A slot that was missed by long is void: many of them would all be taken at once.
    if slot_at is not None and 0 <= now - slot_at <= max(10 * SECOND, policy.burst * interval):
        return Admission()
    # Up to `burst` slots that nobody took lie ready behind the clock.
    slot = max(row.next_slot_at, now - (policy.burst - 1) * interval)
    _set(connection, name, next_slot_at=slot + interval)
    if slot <= now:
        return Admission()
    reason = f"{name} is limited to {policy.requests_per_minute:g} calls a minute"
    return Admission(again_at=slot, slot_at=slot, reason=reason)


def note(connection: Connection, health: Health, now: int) -> None:
    """Book what a finished call says of its provider."""
    row = _row(connection, health.provider)
    if health.pause_s > 0:
        until = max(row.paused_until, now + int(health.pause_s * SECOND))
        _set(connection, health.provider, paused_until=until,
             next_slot_at=max(row.next_slot_at, until))  # fmt: skip
    if health.verdict is Verdict.WELL:
        if row.failures or row.open_until is not None:
            _set(connection, health.provider, failures=0, openings=0, open_until=None,
                 probe_until=None, reason="")  # fmt: skip
        return
    failures = row.failures + 1
    cooldown = _cooldown_s(health, row, now)
    if cooldown is None:
        _set(connection, health.provider, failures=failures, reason=health.reason)
        return
    open_until = max(row.open_until or 0, now + int(cooldown * SECOND))
    _set(connection, health.provider, failures=failures, openings=row.openings + 1,
         open_until=open_until, probe_until=None, reason=health.reason)  # fmt: skip


def _cooldown_s(health: Health, row: Any, now: int) -> float | None:
    """For how long a failure opens the breaker; ``None`` if it does not."""
    policy = health.policy
    if health.verdict is Verdict.QUOTA:
        return policy.quota_cooldown_s
    if health.verdict is Verdict.AWAY:
        return min(health.pause_s, policy.quota_cooldown_s)
    probed = row.open_until is not None and row.open_until <= now
    if probed or (row.open_until is None and row.failures + 1 >= policy.failures_to_open):
        doubled: float = policy.cooldown_s * 2.0 ** min(row.openings, 30)
        return min(doubled, policy.longest_cooldown_s)
    return None


def closed_lanes(engine: Engine, catalog: Catalog, now: int) -> dict[str, AbsentLane]:
    """The lanes whose provider's breaker is open, each with its reason; one cheap read."""
    remote = {n: catalog.models[lane.model].provider for n, lane in catalog.lanes.items()}
    if not any(remote.values()):
        return {}
    query = select(*PROVIDERS.c).where(PROVIDERS.c.open_until > now)
    with reading(engine) as connection:
        found: Mapping[str | None, Any] = {r.name: r for r in connection.execute(query)}
    return {
        name: AbsentLane(name, catalog.lanes[name].tier, _closed(found[provider], now))
        for name, provider in remote.items()
        if provider in found
    }


def states(engine: Engine, catalog: Catalog, now: int) -> list[ProviderState]:
    """The providers of a catalog's lanes."""
    with reading(engine) as connection:
        return standings(connection, catalog, now)


def standings(connection: Connection, catalog: Catalog, now: int) -> list[ProviderState]:
    """The same, as an open transaction sees them."""
    names = {catalog.models[lane.model].provider for lane in catalog.lanes.values()}
    rows = {r.name: r for r in connection.execute(select(*PROVIDERS.c))}
    return [_state(name, rows.get(name), now) for name in sorted(n for n in names if n)]


def _try_again(connection: Connection, row: Any, now: int) -> Admission:
    """Its time is over: one call finds out whether the provider is back."""
    if row.probe_until is not None and now < row.probe_until:
        reason = f"{row.name} is being tried again"
        return Admission(again_at=now + PROBE_WAIT_US, reason=reason)
    _set(connection, row.name, probe_until=now + PROBE_US)
    return Admission()


def _closed(row: Any, now: int) -> str:
    left = max(0.0, (row.open_until - now) / SECOND)
    return f"provider {row.name} is not called for another {left:.0f} s: {row.reason}"


def _state(name: str, row: Any, now: int) -> ProviderState:
    if row is None:
        return ProviderState(name=name, breaker="closed", failures=0, reopens_in_s=None,
                             paused_for_s=None, reason="")  # fmt: skip
    is_open = row.open_until is not None and now < row.open_until
    shut, opened, half = BREAKER_STATES
    breaker = shut if row.open_until is None else opened if is_open else half
    return ProviderState(
        name=name,
        breaker=breaker,
        failures=row.failures,
        reopens_in_s=round((row.open_until - now) / SECOND, 1) if is_open else None,
        paused_for_s=round((row.paused_until - now) / SECOND, 1)
        if row.paused_until > now
        else None,
        reason=row.reason,
    )


def _row(connection: Connection, name: str) -> Any:
    query = select(*PROVIDERS.c).where(PROVIDERS.c.name == name).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        new = {"name": name, "failures": 0, "openings": 0, "reason": "", "paused_until": 0,
               "next_slot_at": 0}  # fmt: skip
        connection.execute(insert_or_ignore(connection, PROVIDERS, ["name"]).values(**new))
        row = connection.execute(query).one()
    return row


def _set(connection: Connection, name: str, **values: Any) -> None:
    connection.execute(update(PROVIDERS).where(PROVIDERS.c.name == name).values(**values))
