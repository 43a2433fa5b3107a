"""The whole look, part by part; one that fails does not keep the others from being told.

Each part is imported when its turn comes: what it needs may be what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from config.errors import UptierError
from config.secrets import redact
from config.settings import Settings
from workers.doctor.finding import Finding, Tell, failure

Part = Callable[[], list[Finding]]
AGAIN = "mend that, then look again"


def examine(settings: Settings, *, deep: bool, tell: Tell) -> Iterator[Finding]:
    """Every finding, in the order of the report. ``deep`` reads weights whole.

    Raises:
        ConfigurationError: the profile is wrong, or a file of keys is.
    """
    settings.catalog  # noqa: B018 - a broken profile must show before anything is looked at
    started = _clocks()
    parts: dict[str, Part] = {
        "software": _software,
        "machine": lambda: _machine(settings),
        "weights": lambda: _weights(settings, deep=deep, tell=tell),
        "broker": lambda: _broker(settings),
        "ledger": lambda: _ledger(settings),
        "clock": lambda: _clock(settings, started),
    }
    yield from _profile(settings)
    for name, part in parts.items():
        yield from _looked(name, part)


def _looked(name: str, part: Part) -> list[Finding]:
    try:
        return part()
    except ImportError as error:
        said = f"it cannot be looked at: {_first_line(error)}"
        return [failure(name, said, "run `make install`, then look again")]
    except (UptierError, OSError) as error:
        return [failure(name, _first_line(error), AGAIN)]
    except Exception as error:
        said = f"looking at it failed: {type(error).__name__}: {_first_line(error)}"
        return [failure(name, said, AGAIN)]


def _first_line(error: Exception) -> str:
    return redact(next(iter(str(error).splitlines()), "no reason given"))


def _clocks() -> tuple[float, float]:
    """The time by the wall clock and by the monotonic one, in seconds."""
    return time.time(), time.monotonic()


def _profile(settings: Settings) -> list[Finding]:
    from workers.doctor.profile import profile

    return profile(settings)


def _software() -> list[Finding]:
    from workers.doctor.software import software

    return software()


def _machine(settings: Settings) -> list[Finding]:
    from workers.doctor.machine import machine

    return machine(settings)


def _weights(settings: Settings, *, deep: bool, tell: Tell) -> list[Finding]:
    from workers.doctor.weights import weights

    return weights(settings, deep=deep, tell=tell)


def _broker(settings: Settings) -> list[Finding]:
    from workers.doctor.services import broker

    return [broker(settings)]


def _ledger(settings: Settings) -> list[Finding]:
    from workers.doctor.services import ledger

    return [ledger(settings)]


def _clock(settings: Settings, started: tuple[float, float]) -> list[Finding]:
    from workers.doctor.services import clocks, steadiness

    found = clocks(settings)
    wall, monotonic = _clocks()
    return [*found, *steadiness(wall - started[0], monotonic - started[1])]
