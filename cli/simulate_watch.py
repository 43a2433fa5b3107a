"""Shows how the decisions of a simulation settle, while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.progress import Progress

from cli.output import err, say
from config.catalog import Catalog
from producers.asking import Settling, gather
from routing.decision import Decision, Settled


class Watched:
    """Passes decisions on to whoever answers, and shows on a bar how they settle."""

    def __init__(
        self, asker: Settling, catalog: Catalog, expected: int, progress: Progress
    ) -> None:
        self._asker = asker
        self._lanes = catalog.lanes
        self._progress = progress
        self._expected = expected
        self._next_line = 1
        self._tiers: Counter[str] = Counter()
        self._task = progress.add_task("deciding", total=expected, detail="")

    def submit(self, decisions: Sequence[Decision]) -> list[str]:
        """Ask; the decisions' ids in their order."""
        return self._asker.submit(decisions)

    def wait_some(self, ids: Sequence[str]) -> list[Settled]:
        """Those of ``ids`` that are settled, as soon as there is one."""
        settled = self._asker.wait_some(ids)
        self._show(settled)
        return settled

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        """Submit and wait; settlements in the order of submission."""
        return gather(self, decisions)

    def _show(self, settled: Sequence[Settled]) -> None:
        for one in settled:
            lane = self._lanes.get(one.lane or "")
            self._tiers[lane.tier if lane else "none"] += 1
        detail = " ".join(f"{tier} {count}" for tier, count in sorted(self._tiers.items()))
        self._progress.update(self._task, advance=len(settled), detail=detail)
        done = sum(self._tiers.values())
        if not err.is_terminal and done >= self._next_line:
            # A log shows no bar, so it gets a line for each twentieth of the way.
            self._next_line = done + self._expected // 20
            say(f"decided {done} of {self._expected}: {detail}")
