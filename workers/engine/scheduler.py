"""Which rows go into the next forward pass: admission by cells, shared prefixes first.

A pass computes prefixes that are in flight, or, when none is, the requests' own tokens and the
next tokens of texts. So a prefix is computed once and by itself, whoever arrives meanwhile, and
what it holds does not depend on its company.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from config.errors import BackendError
from workers.engine.context import LlamaContext, Logits, Span
from workers.engine.jobs import Job
from workers.engine.radix import Node, Place, RadixTree, boundaries

PATIENCE_S = 2.0
"""Jobs of another adapter are overtaken by the current one's for at most so long."""
ROOT = 0
"""The sequence that is always empty: the start of every prompt."""
NEW_NODES = 2
"""Sequences that placing a request takes for prefixes at most."""


@dataclass(frozen=True)
class Part:
    """What one job or prefix has in a pass; ``outputs`` of its rows are wanted."""

    owner: Job | Node
    spans: tuple[Span, ...]
    outputs: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(len(span.tokens) for span in self.spans)


class Scheduler:
    """The jobs of one context, and what lies in it. The owner thread's alone.

    ``reproducible`` gives each job the context to itself, laid out the same whatever came before,
    so that its answer is the same to the last bit; nothing is batched then.
    """

    def __init__(self, context: LlamaContext, *, reproducible: bool = False) -> None:
        self._context = context
        self._reproducible = reproducible
        shape = context.shape
        self._free = deque(range(1, shape.sequences))
        self._cells, self._batch = shape.cells, shape.batch
        self._kept = shape.sequences // 4
        """Sequences that prefixes leave to the jobs themselves."""
        self._trees: dict[str, RadixTree] = {}
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.adapter = ""
        self._endings = 0
        self._looked = (0, 0)
        """How many waited and how many had ended when it was last asked who may come in."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    @property
    def slots(self) -> int:
        """How many sequences jobs and prefixes can have at once."""
        return self._context.shape.sequences - 1

    @property
    def cells_used(self) -> int:
        """Cells that hold prefixes, or are promised to running jobs."""
        prefixes = sum(len(n.tokens) for tree in self._trees.values() for n in tree.nodes())
        return prefixes + sum(self._own_cells(job) for job in self.running)

    def admit(self) -> None:
        """Move waiting jobs of the current adapter into the context, as far as it has room.

        Raises nothing: a job that could not fit into an empty context fails alone. Looks at
        nobody anew unless one has come or gone since.
        """
        looked = (len(self.waiting), self._endings)
        if looked == self._looked:
            return
        self._looked = looked
        if not self.running and self.waiting:
            self.adapter = self.waiting[0].adapter
        ours = [job for job in self.waiting if job.adapter == self.adapter]
        if not ours or self._others_have_waited():
            return
        if self._reproducible:
            self._admit_alone(ours[0])
            return
        marks = boundaries([job.prompt for job in ours], [job.hint for job in ours])
        for job, mark in zip(ours, marks, strict=True):
            if self._fits_at_all(job) and not self._enter(job, mark):
                break

    def _admit_alone(self, job: Job) -> None:
        if self.running or not self._fits_at_all(job):
            return
        prefix = job.prompt[: min(job.hint, len(job.prompt) - 1)]
        trees = self._trees.items()
        held = [(name, n.tokens) for name, tree in trees for n in tree.nodes() if n.tokens]
        if held != [(self.adapter, prefix)]:
            self._context.clear()
            self._trees.clear()
            self._free = deque(range(1, self._context.shape.sequences))
        self._enter(job, job.hint)

    def _enter(self, job: Job, mark: int) -> bool:
        """Give a job its place in the context; false if it has to wait for room."""
        tree = self._tree()
        known = tree.match(job.prompt)[1]
        if self._has_room(job, tree.find(job.prompt, mark)):
            node = tree.place(job.prompt, mark)
        elif self.running:
            return False
        else:  # it needs the whole context
            while self.evict():
                pass
            node = tree.root
        node.users += 1
        job.node = node
        if not self._make_room(job):
            node.users -= 1
            job.node = None
            return False
        if not job.begun:
            job.begun, job.cached = time.monotonic(), min(known, node.end)
        job.sequences = [self._free.popleft() for _ in range(job.wants)]
        self.waiting.remove(job)
        self.running.append(job)
        return True

    def compose(self) -> list[Part]:
        """The next pass: at most the batch's size of rows."""
        prefixes = self._prefixes()
        if prefixes:
            return prefixes
        parts: list[Part] = []
        ready = [job for job in self.running if job.node is not None and job.node.ready]
        for job in ready:
            self._begin(job)
        ends = (job.rows_at_end + 1 for job in ready)
        room = min(self._batch, max(self._room(j.rows_left for j in ready), *ends, 0))
        for job in sorted(ready, key=_turn):
            spans = job.spans(room) if room > 0 else []
            if spans:
                parts.append(Part(job, tuple(spans), sum(s.wanted for s in spans)))
                room -= parts[-1].rows
        return parts

    def dispatch(self, parts: Sequence[Part], logits: Logits) -> None:
        """Hand the rows of a pass to their owners; whoever is done leaves."""
        place = 0
        for part in parts:
            rows = logits[place : place + part.outputs]
            place += part.outputs
            if isinstance(part.owner, Node):
                part.owner.done += part.rows
            elif part.outputs:
                self._take(part.owner, rows)

    def leave(self, job: Job, error: BaseException | None = None) -> None:
        """Take a job out, with an error if it did not finish by itself."""
        if job in self.running:
            self.running.remove(job)
        if job in self.waiting:
            self.waiting.remove(job)
        self._endings += 1
        for sequence in job.sequences:
            self._context.forget(sequence)
        self._free.extendleft(reversed(job.sequences))
        if job.node is not None:
            job.node.users -= 1
        job.close()
        job.restart()
        if error is not None:
            job.settle(error)

    def evict(self, tree: RadixTree | None = None) -> bool:
        """Drop the prefix that was used least recently; false if all are in use."""
        trees = [tree] if tree is not None else list(self._trees.values())
        idle = [node for t in trees if (node := t.idle()) is not None]
        if not idle:
            return False
        self._drop(min(idle, key=lambda node: node.used))
        return True

    def abandon(self, prefix: Node, error: BaseException) -> None:
        """Take out a prefix that cannot be computed, all below it, and all jobs that need them."""
        below = list(RadixTree.nodes_from(prefix))
        for job in [job for job in self.running if job.node in below]:
            self.leave(job, error)
        for node in reversed(below):
            self._drop(node)

    def start_over(self) -> list[Job]:
        """Forget all that was in a context that is gone; the jobs that were in it."""
        lost, self.running = self.running, []
        for job in lost:
            job.restart()
            job.restarts += 1
        self._endings += len(lost)
        self._trees.clear()
        self._free = deque(range(1, self._context.shape.sequences))
        self.waiting.extendleft(reversed(lost))
        return lost

    def forget_adapter(self, adapter: str) -> None:
        """Drop the prefixes that were computed under an adapter."""
        tree = self._trees.get(adapter)
        while tree is not None and self.evict(tree):
            pass

    def _drop(self, leaf: Node) -> None:
        leaf.remove()
        self._context.forget(leaf.holder)
        self._free.append(leaf.holder)

    def _take(self, job: Job, rows: Logits) -> None:
        try:
            if job.take(rows):
                self.leave(job)
        except Exception as error:  # one bad request never fails its neighbours
            fault = error if isinstance(error, BackendError) else BackendError(str(error))
            self.leave(job, fault)

    def _tree(self) -> RadixTree:
        if self.adapter not in self._trees:
            self._trees[self.adapter] = RadixTree(ROOT, self._take_sequence, self._context.share)
        return self._trees[self.adapter]

    def _take_sequence(self) -> int | None:
        if len(self._free) <= self._kept and not self.evict():
            return None
        return self._free.popleft()

    def _fits_at_all(self, job: Job) -> bool:
        """Whether a job would fit into an empty context; it fails if not."""
        fault = self._misfit(job)
        if fault is None:
            return True
        self.leave(job, BackendError(fault, retryable=False))
        return False

    def _misfit(self, job: Job) -> str | None:
        need, rows, batch = len(job.known) + job.extra, job.rows_at_end + 1, self._batch
        if not job.prompt:
            return "the prompt has no tokens: ask something"
        if rows > batch:
            return (f"the labels need {rows} rows of a batch and the model's `batch` has {batch}: "
                    "give fewer or shorter labels, or make it larger")  # fmt: skip
        if need > self._cells or job.wants > self.slots:
            return (f"prompt and answer of {need} tokens and {job.wants} sequences exceed the "
                    f"context of {self._cells} and {self.slots}: shorten the prompt")  # fmt: skip
        return None

    def _has_room(self, job: Job, place: Place) -> bool:
        """Whether a job fits at a place, once all that can leave has left. Changes nothing."""
        free, start = len(self._free), place.node.end
        need = self.cells_used + len(job.known) + job.extra - self._cells
        if need <= start and free - NEW_NODES >= job.wants:
            return True
        way = set(place.node.way())
        leaving = [n for t in self._trees.values() for n in t.spare() if n not in way]
        cells = sum(len(n.tokens) for n in leaving)
        if place.child is not None and (free > self._kept or set(leaving) - {place.child}):
            start = place.depth
            cells -= start - place.node.end if place.child in leaving else 0
        new = min((place.child is not None) + place.grows, max(0, free - self._kept) + len(leaving))
        return need <= start + cells and free + len(leaving) - new >= job.wants

    def _make_room(self, job: Job) -> bool:
        """Evict until a job fits; false if nothing is left to evict."""
        need = self._own_cells(job)
        while self.cells_used + need > self._cells or len(self._free) < job.wants:
            if not self.evict():
                return False
        return True

    def _others_have_waited(self) -> bool:
        """Whether jobs of another adapter have waited so long that no more may overtake them."""
        oldest = self.waiting[0]
        waited = time.monotonic() - oldest.queued
        return bool(self.running and oldest.adapter != self.adapter and waited > PATIENCE_S)

    def _own_cells(self, job: Job) -> int:
        start = job.node.end if job.node is not None else 0
        return len(job.known) - start + job.extra

    def _room(self, left: Iterable[int]) -> int:
        """Rows of the next pass: as many passes as needed, all alike, for a small one is dear."""
        rows = sum(left)
        passes = -(-rows // self._batch)
        return -(-rows // passes) if passes else 0

    def _prefixes(self) -> list[Part]:
        """The next tokens of prefixes that running jobs wait for."""
        parts: list[Part] = []
        needed = (job.node.first_unready() for job in self.running if job.node is not None)
        nodes = list(dict.fromkeys(node for node in needed if node is not None))
        room = self._room(len(n.tokens) - n.done for n in nodes)
        for node in nodes:
            parent = node.parent
            if parent is None or room <= 0:
                continue
            if node.done == 0:
                self._context.share(parent.holder, node.holder, node.start)
            tokens = node.tokens[node.done : node.done + room]
            span = Span(tokens, node.start + node.done, (node.holder,))
            parts.append(Part(node, (span,), 0))
            room -= len(tokens)
        return parts

    def _begin(self, job: Job) -> None:
        """Let a job that has nothing computed yet see its prefix."""
        if job.computed or job.node is None or job.node.end == 0:
            return
        for sequence in job.sequences:
            self._context.share(job.node.holder, sequence, job.node.end)
        job.computed = job.node.end


def _turn(job: Job) -> int:
    """Who goes first: a choice whose end found no room beside others, then texts being written."""
    if job.rows_at_end and job.computed == len(job.prompt) - 1:
        return 0
    return 1 if job.rows_left == 1 else 2
