"""What came of a scene, and the table of all of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table


@dataclass
class Outcome:
    """What came of one fault over all its rounds.

    ``recoveries_s`` has one value a round, in seconds; ``complaints`` are sentences about
    whatever else ought not to be.
    """

    number: int
    title: str
    bound_s: float | None
    rounds: int = 0
    lost: int = 0
    doubled: int = 0
    billed_twice: int = 0
    decisions: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def late(self) -> bool:
        """Whether a recovery took longer than promised."""
        return self.bound_s is not None and any(s > self.bound_s for s in self.recoveries_s)

    @property
    def held(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.doubled or self.billed_twice or self.late or self.complaints)

    def figures(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self) | {
            "median_s": _rounded(statistics.median, self.recoveries_s),
            "worst_s": _rounded(max, self.recoveries_s),
            "held": self.held,
        }

    def story(self) -> str:
        """In lines, for a failed test."""
        head = (
            f"fault {self.number} ({self.title}): lost {self.lost}, doubled {self.doubled}, "
            f"billed twice {self.billed_twice}, recovered after "
            f"{[round(s, 1) for s in self.recoveries_s]} s (bound {self.bound_s})"
        )
        return "\n".join([head, *(f"  {line}" for line in self.complaints)])


def table(outcomes: Sequence[Outcome]) -> Table:
    """All outcomes in the order of their numbers."""
    shown = Table(title="Injected faults", title_justify="left")
    for heading in ("fault", "rounds", "decisions", "lost", "doubled", "billed twice",
                    "median s", "worst s", "bound s", "held"):  # fmt: skip
        shown.add_column(heading, justify="left" if heading == "fault" else "right")
    for one in sorted(outcomes, key=lambda o: o.number):
        figures = one.figures()
        shown.add_row(
            f"{one.number} {one.title}", str(one.rounds), str(one.decisions), str(one.lost),
            str(one.doubled), str(one.billed_twice), _shown(figures["median_s"]),
            _shown(figures["worst_s"]), _shown(one.bound_s), "yes" if one.held else "NO",
        )  # fmt: skip
    return shown


def _rounded(of: Any, values: Sequence[float]) -> float | None:
    return round(of(values), 2) if values else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
