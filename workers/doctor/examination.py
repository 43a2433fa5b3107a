"""The whole look, part by part; one that fails does not keep the others from being told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from config.errors import UptierError
from config.settings import Settings
from workers.doctor.finding import Finding, failure
from workers.doctor.machine import machine
from workers.doctor.profile import profile
from workers.doctor.services import broker, clocks, ledger, measured_now, steadiness
from workers.doctor.software import software
from workers.doctor.weights import Tell, weights

Part = Callable[[], list[Finding]]


def examine(settings: Settings, *, deep: bool, tell: Tell) -> Iterator[Finding]:
    """Every finding, in the order of the report. ``deep`` reads weights whole.

    Raises:
        ConfigurationError: the profile is wrong, or a file of keys is.
    """
    settings.catalog  # noqa: B018 - a broken profile must show before anything is looked at
    started = measured_now()
    parts: dict[str, Part] = {
        "software": software,
        "machine": lambda: machine(settings),
        "weights": lambda: weights(settings, deep=deep, tell=tell),
        "broker": lambda: [broker(settings)],
        "ledger": lambda: [ledger(settings)],
        "clock": lambda: clocks(settings),
    }
    yield from profile(settings)
    for name, part in parts.items():
        yield from _looked(name, part)
    wall, monotonic = measured_now()
    yield from steadiness(wall - started[0], monotonic - started[1])


def _looked(name: str, part: Part) -> list[Finding]:
    try:
        return part()
    except (UptierError, OSError) as error:
        return [failure(name, str(error).splitlines()[0], "mend that, then look again")]
