"""Whose turn it is among adapters, with a context that computes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from workers.engine import scheduler as schedulers
from workers.engine.context import Shape
from workers.engine.jobs import ChoiceJob, Job
from workers.engine.labels import build_trie
from workers.engine.scheduler import PATIENCE_S, Scheduler

VOCABULARY = 16
TRIE = build_trie(((1,), (2,)), 0)


class Blank:
    """Takes everything, holds nothing."""

    shape = Shape(1024, batch=64, sequences=16)

    def share(self, *_: object) -> None: ...

    def forget(self, _: int) -> None: ...

    def clear(self) -> None: ...


@dataclass
class Clock:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(schedulers, "time", made)
    return made


def job(adapter: str, clock: Clock, length: int = 40) -> Job:
    made = ChoiceJob(tuple(range(length)), 0, adapter, trie=TRIE)
    made.queued = clock.now
    return made


def step(scheduler: Scheduler) -> str:
    """One pass; the adapter that it was for."""
    scheduler.admit()
    parts = scheduler.compose()
    wanted = sum(part.outputs for part in parts)
    scheduler.dispatch(parts, np.zeros((wanted, VOCABULARY), dtype=np.float32))
    return scheduler.adapter


def made(**more: Any) -> Scheduler:
    return Scheduler(Blank(), **more)  # type: ignore[arg-type]


def test_a_stream_of_one_adapter_delays_another_by_its_patience_at_most(clock: Clock) -> None:
    """More comes in than can be computed; then at most a full context has to be worked off."""
    scheduler, pass_s = made(), 0.1
    drain_s = pass_s * Blank.shape.cells / Blank.shape.batch
    scheduler.waiting.extend(job("loud", clock, length=100) for _ in range(2))
    step(scheduler)
    quiet = job("quiet", clock)
    scheduler.waiting.append(quiet)
    asked, loud = clock.now, 0
    while not quiet.future.done():
        scheduler.waiting.append(job("loud", clock, length=100))
        loud += step(scheduler) == "loud"
        clock.now += pass_s
        assert clock.now - asked < PATIENCE_S + drain_s
    assert loud >= PATIENCE_S / pass_s  # so long the others went before it
    assert {step(scheduler) for _ in range(3)} == {"loud"}


def test_all_that_wait_for_an_adapter_go_with_its_turn(clock: Clock) -> None:
    scheduler = made()
    jobs = [job(name, clock, length=10) for name in ("a", "b", "a", "b", "a", "b")]
    scheduler.waiting.extend(jobs)
    clock.now += 10 * PATIENCE_S
    turns = []
    while not scheduler.idle:
        turns.append(step(scheduler))
    assert turns == ["a", "b"]
    assert all(one.future.done() for one in jobs)


def test_prefixes_of_one_adapter_are_not_found_by_another(clock: Clock) -> None:
    scheduler = made()
    same = [ChoiceJob(tuple(range(40)), 30, name, trie=TRIE) for name in ("a", "b", "a", "b")]
    for one in same:
        scheduler.waiting.append(one)
        while not scheduler.idle:
            step(scheduler)
    assert [one.future.result().tokens_cached for one in same] == [0, 0, 30, 30]


def test_a_lone_layout_of_one_adapter_is_not_taken_for_anothers(clock: Clock) -> None:
    """Also when a request that does not fit came between."""
    scheduler = made(reproducible=True)
    seen = []
    for name, length in (("a", 40), ("b", 2000), ("b", 40), ("b", 40)):
        one = ChoiceJob(tuple(range(length)), 30, name, trie=TRIE)
        scheduler.waiting.append(one)
        while not scheduler.idle:
            step(scheduler)
        if one.future.exception() is None:
            seen.append((one.future.result().tokens_cached, scheduler.cells_used))
    assert seen == [(0, 30), (0, 30), (30, 30)]


def test_what_was_computed_for_others_counts_as_cached_and_what_was_not_does_not(
    clock: Clock,
) -> None:
    scheduler = made()
    tick = [ChoiceJob((*range(30), 50 + i, 51 + i), 30, trie=TRIE) for i in range(3)]
    scheduler.waiting.extend(tick)
    while not scheduler.idle:
        step(scheduler)
    assert [one.future.result().tokens_cached for one in tick] == [0, 30, 30]


def test_who_waits_is_looked_at_again_only_when_somebody_came_or_went(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    looks: list[int] = []

    def counted(prompts: list[tuple[int, ...]], hints: list[int]) -> list[int]:
        looks.append(len(prompts))
        return list(hints)

    monkeypatch.setattr(schedulers, "boundaries", counted)
    scheduler = made()
    jobs = [job("", clock, length=600) for _ in range(3)]
    scheduler.waiting.extend(jobs)
    while not jobs[0].future.done():
        step(scheduler)
    assert looks == [3, 2]
    while not scheduler.idle:
        step(scheduler)
    assert all(one.future.exception() is None for one in jobs)
    assert len(looks) <= 6
