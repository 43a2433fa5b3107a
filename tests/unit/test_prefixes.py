"""Prefixes in a context with few sequences: whatever leaves, what is computed rests on all before.

The context only notes which positions a sequence holds; it refuses a span that leaves a gap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import BackendError
from tests.faults.engine_order import disorder
from workers.engine.context import Logits, Shape, Span
from workers.engine.jobs import ChoiceJob, Job
from workers.engine.labels import build_trie
from workers.engine.scheduler import Scheduler

VOCABULARY = 8
SINGLE = build_trie(((1,), (2,)), 0)
DEEP = build_trie(((1, 2), (1, 3), (2, 2), (2, 3)), 0)
WIDE = build_trie(tuple((i, j) for i in range(1, 7) for j in (1, 2)), 0)
"""Needs all seven sequences of a small context."""
LONG = tuple(range(100, 140))


class Cells:
    """Knows which position of which sequence holds which token."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._held: dict[int, dict[int, int]] = defaultdict(dict)

    def share(self, source: int, target: int, end: int) -> None:
        self._held[target] |= {p: t for p, t in self._held[source].items() if p < end}

    def forget(self, sequence: int) -> None:
        self._held[sequence] = {}

    def clear(self) -> None:
        self._held.clear()

    def last(self, sequence: int) -> int:
        return max(self._held[sequence], default=-1)

    def compute(self, spans: Sequence[Span]) -> None:
        for span in spans:
            for sequence in span.sequences:
                held = self._held[sequence]
                assert sorted(held) == list(range(span.start)), f"a gap before {span}"
                held |= dict(enumerate(span.tokens, span.start))

    def way(self, sequence: int, length: int) -> tuple[int, ...]:
        return tuple(self._held[sequence][p] for p in range(length))


def small(sequences: int = 8, cells: int = 4096, batch: int = 64) -> tuple[Scheduler, Cells]:
    cells_of = Cells(Shape(cells, batch=batch, sequences=sequences))
    return Scheduler(cells_of), cells_of  # type: ignore[arg-type]


def step(scheduler: Scheduler, context: Cells) -> int:
    """One pass; how many rows it had."""
    scheduler.admit()
    parts = scheduler.compose()
    context.compute([span for part in parts for span in part.spans])
    for part in parts:
        if isinstance(part.owner, Job) and part.outputs:
            for sequence in part.owner.sequences:
                prompt = part.owner.prompt
                assert context.way(sequence, len(prompt)) == prompt
    wanted = sum(part.outputs for part in parts)
    scheduler.dispatch(parts, np.zeros((wanted, VOCABULARY), dtype=np.float32))
    assert disorder(scheduler, context.last) == []
    return sum(part.rows for part in parts)


def finish(scheduler: Scheduler, context: Cells) -> None:
    while not scheduler.idle:
        assert step(scheduler, context) > 0


def choice(prompt: Sequence[int], hint: int) -> ChoiceJob:
    return ChoiceJob(tuple(prompt), hint, trie=SINGLE)


@pytest.mark.parametrize("second", [
    pytest.param((*LONG[:20], 1, 2, 3), id="split"),
    pytest.param((*LONG[:20], *range(300, 330)), id="split and grow"),
    pytest.param((*LONG, *range(300, 330)), id="grow"),
])  # fmt: skip
@pytest.mark.parametrize("busy", range(7))
def test_a_prefix_that_is_built_on_does_not_leave_for_it(
    second: tuple[int, ...], busy: int
) -> None:
    """However few sequences are left, when the prefix is the only one that could leave."""
    scheduler, context = small()
    scheduler.waiting.append(choice((*LONG, 9), 40))
    finish(scheduler, context)
    texts = [choice((50 + i, 51), 0) for i in range(busy)]
    scheduler.waiting.extend(texts)
    scheduler.admit()
    asked = choice(second, len(second) - 1)
    scheduler.waiting.append(asked)
    finish(scheduler, context)
    assert all(job.future.exception() is None for job in (*texts, asked))


def test_a_prefix_that_cannot_be_computed_takes_all_that_need_it_along_and_nobody_else() -> None:
    scheduler, context = small(sequences=16)
    asked = [choice((*LONG, *range(300, 330), i), 70) for i in (1, 2)]
    asked.append(choice((*LONG, *range(400, 430), 3), 70))  # its prefix is below the same node
    other = choice((*range(200, 240), 4), 40)
    scheduler.waiting.extend([*asked, other])
    scheduler.admit()
    bad = asked[0].node and asked[0].node.first_unready()
    assert bad is not None
    scheduler.abandon(bad, BackendError("refused"))
    assert disorder(scheduler, context.last) == []
    finish(scheduler, context)
    assert [str(job.future.exception()) for job in asked] == ["refused"] * 3
    assert other.future.exception() is None


def test_a_prefix_that_nobody_waits_for_any_more_is_not_computed_on() -> None:
    scheduler, context = small(batch=16)
    gone, other = choice((*LONG, 1), 40), choice((7, 8), 0)
    scheduler.waiting.append(gone)
    assert step(scheduler, context) == 14  # three passes, all alike
    scheduler.leave(gone)
    scheduler.waiting.append(other)
    assert step(scheduler, context) == 2
    again = choice((*LONG, 2), 40)
    scheduler.waiting.append(again)
    finish(scheduler, context)
    assert again.future.result().tokens_cached == 40


def test_a_request_that_waits_takes_no_prefix_from_those_that_come() -> None:
    scheduler, context = small(sequences=64, cells=400)
    for template in range(3):
        scheduler.waiting.append(choice((*range(100 * template, 100 * template + 50), 7), 50))
        finish(scheduler, context)
    running, waits = choice((7, *[8] * 150), 0), choice((9, *[10] * 300), 290)
    scheduler.waiting.append(running)
    scheduler.admit()
    held = scheduler.cells_used
    scheduler.waiting.append(waits)
    scheduler.admit()
    assert (scheduler.cells_used, list(scheduler.waiting)) == (held, [waits])
    finish(scheduler, context)
    assert waits.future.result().tokens_cached == 0


def test_a_request_as_large_as_the_context_gets_all_of_it() -> None:
    scheduler, context = small(sequences=8, cells=100)
    scheduler.waiting.append(choice((*LONG, 7), 40))
    finish(scheduler, context)
    everything = choice((*LONG[:20], *range(60), *range(60, 79)), 60)
    wide = ChoiceJob((*LONG, 8), 40, trie=WIDE)
    for job in (everything, wide):
        scheduler.waiting.append(job)
        finish(scheduler, context)
        assert job.future.exception() is None


@dataclass(eq=False)
class Endless(Job):
    """Writes a token a pass and never ends."""

    extra = 100
    rows_at_end = 0

    def spans(self, room: int) -> list[Span]:
        found = self._prefill(room, tuple(self.sequences), 0)
        self.computed += len(found[0].tokens) if found else 0
        return found

    def take(self, logits: Logits) -> bool:
        self.prompt = (*self.prompt, 1)
        return False


def test_a_choice_that_fills_a_batch_is_not_kept_waiting_by_texts() -> None:
    scheduler, context = small(sequences=16, batch=len(WIDE.paths) + 1)
    scheduler.waiting.extend(Endless((i,), 0) for i in (1, 2))
    wide = ChoiceJob((3, 4, 5), 0, trie=WIDE)
    scheduler.waiting.append(wide)
    for _ in range(5):
        step(scheduler, context)
    assert wide.future.exception(timeout=0) is None


@pytest.mark.parametrize(("prompt", "batch", "said"), [
    ((1, 2), len(WIDE.paths), "7 rows of a batch and the model's `batch` has 6"),
    ((), 64, "no tokens"),
])  # fmt: skip
def test_what_can_never_be_computed_fails_at_once(
    prompt: tuple[int, ...], batch: int, said: str
) -> None:
    scheduler, context = small(batch=batch)
    scheduler.waiting.extend([ChoiceJob(prompt, 0, trie=WIDE), choice((1, 2), 0)])
    jobs = list(scheduler.waiting)
    finish(scheduler, context)
    assert said in str(jobs[0].future.exception())
    assert jobs[1].future.exception() is None


TEMPLATES = st.lists(st.integers(0, 2), max_size=3)
ASKED = st.tuples(
    TEMPLATES, st.integers(1, 12), st.sampled_from([SINGLE, DEEP]), st.booleans(), st.booleans()
)


@given(rounds=st.lists(st.lists(ASKED, max_size=5), min_size=1, max_size=12))
def test_whatever_is_asked_and_cancelled_every_sequence_has_one_owner(
    rounds: list[list[tuple[list[int], int, object, bool, bool]]],
) -> None:
    scheduler, context = small(sequences=9, cells=220, batch=16)
    number, asked = 500, []
    for batch in rounds:
        for template, length, trie, adapted, cancelled in batch:
            number += 1
            shared = [t for part in template for t in range(100 * part, 100 * part + 12)]
            prompt = (*shared, *[number] * length)
            job = ChoiceJob(prompt, len(shared), "a" * adapted, trie=trie)  # type: ignore[arg-type]
            scheduler.waiting.append(job)
            asked.append((job, cancelled))
        if not scheduler.idle:
            step(scheduler, context)
        for job, cancelled in asked:
            if cancelled and not job.future.done():
                job.future.cancel()
                scheduler.leave(job)
    finish(scheduler, context)
    assert all(job.future.done() for job, _ in asked)
