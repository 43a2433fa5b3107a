"""How a model that lives in ticks is driven: all together, or each part as far as it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from producers.asking import Asker, Settling
from routing.decision import Decision, Settled


class Steps(Protocol):
    """Something that lives in ticks and asks decisions in each of them.

    ``observe`` and ``apply`` take turns; ``apply`` ends the tick. Keys of decisions are unique
    in the run and the same whenever the same run is lived again.
    """

    @property
    def tick(self) -> int:
        """The tick that is or will be observed next, from 0."""
        ...

    @property
    def done(self) -> bool:
        """Whether all ticks have been applied."""
        ...

    def observe(self, tick: int) -> list[Decision]:
        """The decisions of this tick."""
        ...

    def apply(self, tick: int, settled: Sequence[Settled]) -> None:
        """Let the answers take effect."""
        ...


@dataclass(frozen=True)
class TickReport:
    """What came of one tick, for whoever watches."""

    tick: int
    decisions: tuple[Decision, ...]
    settled: tuple[Settled, ...]


OnTick = Callable[[TickReport], None]


def nobody_watches(_: TickReport) -> None:
    """For runs that nobody watches."""


def run_in_step(steps: Steps, asker: Asker, on_tick: OnTick = nobody_watches) -> None:
    """Live all ticks that are left, asking each tick's decisions together."""
    while not steps.done:
        tick = steps.tick
        decisions = steps.observe(tick)
        settled = asker.gather(decisions)
        steps.apply(tick, settled)
        on_tick(TickReport(tick, tuple(decisions), tuple(settled)))


def run_freely(
    parts: Sequence[Steps],
    asker: Settling,
    *,
    lead: int,
    on_tick: OnTick = nobody_watches,
) -> None:
    """Live all ticks of parts that never meet, each as soon as its own answers are there.

    Whoever is earliest in simulated time asks first, and nobody gets more than ``lead`` ticks
    ahead of the last. Each part sees the same answers in the same order as in step.
    """
    waiting: dict[int, _Tick] = {}
    while True:
        behind = min((part.tick for part in parts if not part.done), default=None)
        if behind is None:
            return
        due = [n for n, part in enumerate(parts) if n not in waiting and not part.done]
        due = [n for n in due if parts[n].tick <= behind + lead]
        _ask(parts, sorted(due, key=lambda n: (parts[n].tick, n)), asker, waiting)
        open_ids = [i for tick in waiting.values() for i in tick.open]
        _take(waiting, asker.wait_some(open_ids) if open_ids else [])
        for number in [n for n, tick in waiting.items() if not tick.open]:
            ended = waiting.pop(number)
            settled = [ended.settled[i] for i in ended.ids]
            parts[number].apply(ended.tick, settled)
            on_tick(TickReport(ended.tick, tuple(ended.decisions), tuple(settled)))


@dataclass
class _Tick:
    """What a part asked in a tick: ``ids`` in the order of its decisions."""

    tick: int
    decisions: list[Decision]
    ids: list[str] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    settled: dict[str, Settled] = field(default_factory=dict)


def _ask(
    parts: Sequence[Steps], due: Sequence[int], asker: Settling, waiting: dict[int, _Tick]
) -> None:
    """Have the parts that are due observe, and submit what they ask together."""
    asked: list[Decision] = []
    for number in due:
        tick = parts[number].tick
        decisions = parts[number].observe(tick)
        waiting[number] = _Tick(tick, decisions)
        asked += decisions
    ids = iter(asker.submit(asked) if asked else [])
    for number in due:
        waiting[number].ids = [next(ids) for _ in waiting[number].decisions]
        waiting[number].open = set(waiting[number].ids)


def _take(waiting: dict[int, _Tick], settled: Sequence[Settled]) -> None:
    by_id = {one.id: one for one in settled}
    for tick in waiting.values():
        found = tick.open & by_id.keys()
        tick.settled.update((i, by_id[i]) for i in found)
        tick.open -= found
