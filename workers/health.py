"""Whether a worker that serves gets anywhere: judged by what it has done, not by its being there.

A process that answers its supervisor may still hang: in a driver, in a lock, in a model. So a
worker is ill when it is not heard of, or when there is work and nothing comes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ledger.workers import Sign

HEARD_AT_LEAST_S = 15.0
"""Silence that is always borne: workers tell of themselves every 5 s."""
COUNTS = ("begun", "finished", "recorded", "passes")
"""Figures that only grow, and do so while a worker gets on."""


@dataclass(frozen=True)
class Patience:
    """How long a worker may be silent, and how long it may get nowhere, in seconds."""

    silence_s: float
    standstill_s: float


@dataclass
class _Pulse:
    """What was seen of one instance, by a clock that only goes forward."""

    heartbeat: int
    counts: tuple[float, ...]
    heard: float
    moved: float


@dataclass
class Ward:
    """The workers of one lane under observation. Times are seconds of the caller's clock."""

    _pulses: dict[str, _Pulse] = field(default_factory=dict)

    def look(
        self, signs: dict[str, Sign], waiting: int, patience: Patience, now: float
    ) -> dict[str, str]:
        """Who of the lane is ill, by token, and why; ``waiting`` are its due decisions.

        Work that waits speaks against a worker only if it holds some of it, or nobody else does:
        an idle one has nothing to do while its neighbour holds all messages.
        """
        self._pulses = {
            token: self._felt(token, sign, waiting, now) for token, sign in signs.items()
        }
        ill: dict[str, str] = {}
        somebody = any(_held(sign) for sign in signs.values())
        still = all(now - p.moved >= patience.standstill_s for p in self._pulses.values())
        for token, pulse in self._pulses.items():
            held = _held(signs[token])
            if now - pulse.heard >= patience.silence_s:
                ill[token] = f"was not heard of for {now - pulse.heard:.0f} s"
            elif held and now - pulse.moved >= patience.standstill_s:
                ill[token] = f"got nowhere for {now - pulse.moved:.0f} s with {held:.0f} messages"
            elif waiting and still and not somebody:
                ill[token] = (
                    f"took nothing for {now - pulse.moved:.0f} s while {waiting} decisions waited"
                )
        return ill

    def forget(self) -> None:
        """Begin anew: for a while nobody looked, so nothing can be said of it."""
        self._pulses.clear()

    def _felt(self, token: str, sign: Sign, waiting: int, now: float) -> _Pulse:
        counts = tuple(sign.figures.get(name, 0.0) for name in COUNTS)
        before = self._pulses.get(token)
        if before is None:
            return _Pulse(sign.heartbeat_at, counts, now, now)
        idle = not waiting and not _held(sign)
        return _Pulse(
            sign.heartbeat_at,
            counts,
            before.heard if sign.heartbeat_at == before.heartbeat else now,
            before.moved if counts == before.counts and not idle else now,
        )


def has_worked(sign: Sign) -> bool:
    """Whether an instance has finished something since it started."""
    return sign.figures.get("finished", 0) > 0 or sign.figures.get("recorded", 0) > 0


def _held(sign: Sign) -> float:
    return sign.figures.get("held", 0.0)
