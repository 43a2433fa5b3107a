"""Which rows go into the next forward pass: admission by cells, shared prefixes first.

A pass computes prefixes that are in flight, or, when none is, the requests' own tokens and the
next tokens of texts. So a prefix is computed once and by itself, whoever arrives meanwhile, and
what it holds does not depend on its company.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from config.errors import BackendError
from workers.engine.context import LlamaContext, Logits, Span
from workers.engine.jobs import Job
from workers.engine.radix import Node, RadixTree, boundaries

PATIENCE_S = 2.0
"""Jobs of another adapter are overtaken by the current one's for at most so long."""
ROOT = 0
"""The sequence that is always empty: the start of every prompt."""


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
        self._cells = shape.cells
        self._trees: dict[str, RadixTree] = {}
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.adapter = ""

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

        Raises nothing: a job that could not fit into an empty context fails alone.
        """
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
        node = tree.place(job.prompt, mark)
        job.cached = min(known, node.end)
        self._tell_splits(tree)
        node.users += 1
        job.node = node
        if not self._make_room(job):
            node.users -= 1
            job.node = None
            return False
        job.sequences = [self._free.popleft() for _ in range(job.wants)]
        job.begun = time.monotonic()
        self.waiting.remove(job)
        self.running.append(job)
        return True

    def compose(self) -> list[Part]:
        """The next pass: at most the batch's size of rows."""
        room = self._context.shape.batch
        prefixes = self._prefixes(room)
        if prefixes:
            return prefixes
        parts: list[Part] = []
        texts_first = sorted(self.running, key=lambda j: len(j.known) - j.computed > 1)
        for job in texts_first:
            if job.node is None or not job.node.ready or room <= 0:
                continue
            self._begin(job)
            spans = job.spans(room)
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
        for sequence in job.sequences:
            self._context.forget(sequence)
        self._free.extendleft(reversed(job.sequences))
        if job.node is not None:
            job.node.users -= 1
        job.close()
        job.restart()
        if error is not None and not job.future.done():
            job.future.set_exception(error)

    def evict(self, tree: RadixTree | None = None) -> bool:
        """Drop the prefix that was used least recently; false if all are in use."""
        trees = [tree] if tree is not None else list(self._trees.values())
        idle = [(node.used, t, node) for t in trees if (node := t.idle()) is not None]
        if not idle:
            return False
        _, owner, node = min(idle, key=lambda found: found[0])
        owner.remove(node)
        self._context.forget(node.holder)
        self._free.append(node.holder)
        return True

    def start_over(self) -> list[Job]:
        """Forget all that was in a context that is gone; the jobs that were in it."""
        lost, self.running = self.running, []
        for job in lost:
            job.restart()
            job.restarts += 1
        self._trees.clear()
        self._free = deque(range(1, self._context.shape.sequences))
        self.waiting.extendleft(reversed(lost))
        return lost

    def forget_adapter(self, adapter: str) -> None:
        """Drop the prefixes that were computed under an adapter."""
        tree = self._trees.get(adapter)
        while tree is not None and self.evict(tree):
            pass

    def _take(self, job: Job, rows: Logits) -> None:
        try:
            if job.take(rows):
                self.leave(job)
        except Exception as error:  # one bad request never fails its neighbours
            fault = error if isinstance(error, BackendError) else BackendError(str(error))
            self.leave(job, fault)

    def _tree(self) -> RadixTree:
        if self.adapter not in self._trees:
            self._trees[self.adapter] = RadixTree(ROOT, self._take_sequence)
        return self._trees[self.adapter]

    def _take_sequence(self) -> int | None:
        # A quarter stays for the jobs themselves.
        if len(self._free) <= self._context.shape.sequences // 4 and not self.evict():
            return None
        return self._free.popleft()

    def _tell_splits(self, tree: RadixTree) -> None:
        for split in tree.splits:
            self._context.share(split.lower, split.upper, split.end)
        tree.splits.clear()

    def _fits_at_all(self, job: Job) -> bool:
        need = len(job.known) + job.extra
        sequences = self._context.shape.sequences - 1
        if need <= self._cells and job.wants <= sequences:
            return True
        self.leave(job, BackendError(
            f"prompt and answer of {need} tokens and {job.wants} sequences exceed the context of "
            f"{self._cells} and {sequences}: shorten the prompt", retryable=False,
        ))  # fmt: skip
        return False

    def _make_room(self, job: Job) -> bool:
        """Evict until the job fits; false if it has to wait."""
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

    def _prefixes(self, room: int) -> list[Part]:
        parts: list[Part] = []
        for node in self._tree().nodes():
            parent = node.parent
            if node.ready or parent is None or not parent.ready or room <= 0:
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
