"""Tasks: what they are, how far they have come, and how that is put in plain words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from producers.simulation.dice import Dice
from producers.simulation.labels import TaskStatus, Tool

TICKS_PER_HOUR = 4
TICKS_PER_DAY = 32
REVIEW_TICKS = TICKS_PER_DAY
"""24 hours on the calendar are one working day."""
NEVER = 1 << 62

# Each part has its own first letter, so that the names make good labels.
PARTS = (
    "axle",
    "bracket",
    "cover",
    "duct",
    "elbow",
    "flange",
    "gear",
    "housing",
    "inlet",
    "joint",
    "lever",
    "manifold",
    "nozzle",
    "oil pan",
    "panel",
    "rotor",
    "shaft",
    "valve",
)
JOBS = {
    "drawing": "drawing",
    "stress": "stress check",
    "heat": "heat study",
    "wiring": "cable plan",
    "testing": "test plan",
    "costing": "cost sheet",
    "files": "file set",
    "inspection": "inspection report",
}
"""The noun of the work that each skill does."""
STEPS: tuple[tuple[str, Tool], ...] = (
    ("draw a new part", Tool.CAD),
    ("change a dimension of the part", Tool.CAD),
    ("compute the stress", Tool.SOLVER),
    ("simulate the heat", Tool.SOLVER),
    ("add up the costs", Tool.SHEET),
    ("list the measurements", Tool.SHEET),
    ("look at a drawing", Tool.VIEWER),
    ("comment on a drawing", Tool.VIEWER),
    ("turn the file into PDF", Tool.CONVERTER),
    ("turn the file into STEP", Tool.CONVERTER),
    ("store the released file", Tool.ARCHIVE),
    ("fetch an old version", Tool.ARCHIVE),
)
SIZES: tuple[Literal["small", "medium", "large"], ...] = ("small", "medium", "large")
SIZE_HOURS = {"small": 1, "medium": 2, "large": 4}
SIZE_STEPS = {"small": 1, "medium": 2, "large": 3}
COMPLEXITY: dict[str, Literal["low", "medium", "high"]] = {
    "small": "low",
    "medium": "medium",
    "large": "high",
}
PRIORITIES = ("urgent", "normal", "normal", "low", "low")
"""Drawn from, so a priority named twice is twice as likely."""


@dataclass
class Blocker:
    """What keeps a task from going on, and the tick at which it lifts of itself.

    With ``everything`` the agent cannot begin any other task meanwhile either.
    """

    cause: str
    until: int
    everything: bool = False


@dataclass(eq=False)
class Task:
    """One piece of work. Times are in ticks of a quarter of an hour."""

    number: int
    part: str
    skill: str
    size: str
    priority: str
    due: int
    familiar: bool
    dependencies: int
    needed: int
    steps: tuple[tuple[str, Tool], ...]
    spent: int = 0
    step: int = 0
    tool: Tool | None = None
    estimate: int | None = None
    promised: int = NEVER
    status: TaskStatus = TaskStatus.DRAFT
    open_items: int = 0
    defects: int = 0
    serious: int = 0
    verdict: str | None = None
    look_at: int = NEVER
    """The tick from which its owner must decide where it goes next."""
    review_ends: int = NEVER
    blocker: Blocker | None = field(default=None)

    @property
    def name(self) -> str:
        """For example ``bracket stress check``."""
        return f"{self.part} {JOBS[self.skill]}"

    @property
    def work(self) -> str:
        """What is done to the part, for example ``stress check``: as much as most questions need,
        so that they are asked alike for all parts."""
        return JOBS[self.skill]

    @property
    def finished(self) -> bool:
        """Whether all its work is done."""
        return self.spent >= self.needed

    @property
    def progress(self) -> str:
        """How much is done, in words coarse enough that many tasks share them."""
        if self.finished:
            return "finished"
        return ("just begun", "a quarter done", "half done", "three quarters done")[
            self.spent * 4 // self.needed
        ]

    def promise(self, estimate: int, tick: int) -> None:
        """Note the estimate; other things come between, so twice as long is promised."""
        self.estimate = estimate
        self.promised = tick + 2 * estimate

    def lose_half(self) -> None:
        """Half of what was done must be done again."""
        self.spent //= 2

    def days_left(self, tick: int) -> int:
        """Whole working days until it is due; 0 is today, less is late."""
        return (self.due - tick) // TICKS_PER_DAY

    def due_in_quarter_days(self, tick: int) -> int:
        """Quarters of a working day until it is due, rounded down."""
        return (self.due - tick) * 4 // TICKS_PER_DAY


def due_words(days: int) -> str:
    """``days`` from now in words."""
    if days < 0:
        return "overdue"
    return ("today", "tomorrow")[days] if days < 2 else f"in {days} days"


def soon_words(days: int) -> str:
    """The same in words so coarse that many tasks share them."""
    return due_words(days) if days < 2 else "this week" if days < 5 else "later"


def hours_words(ticks: int) -> str:
    """A duration as hours without needless decimals, for example ``2.5 h``."""
    return f"{ticks / TICKS_PER_HOUR:g} h"


def draw_task(dice: Dice, number: int, skill: str, tick: int) -> Task:
    """A new task of a skill, as it might come in at ``tick``."""
    size = dice.pick(SIZES)
    familiar = dice.chance(0.6)
    return Task(
        number=number,
        part=dice.pick(PARTS),
        skill=skill,
        size=size,
        priority=dice.pick(PRIORITIES),
        due=tick + TICKS_PER_DAY * dice.below(9) + dice.between(8, 31),
        familiar=familiar,
        dependencies=dice.below(4),
        needed=_effort(dice, size, familiar),
        steps=tuple(dice.pick(STEPS) for _ in range(SIZE_STEPS[size])),
        defects=dice.between(0, 5) if dice.chance(0.6) else 0,
        serious=1 if dice.chance(0.2) else 0,
    )


def _effort(dice: Dice, size: str, familiar: bool) -> int:
    usual = SIZE_HOURS[size] * TICKS_PER_HOUR * (1 if familiar else 2)
    return max(2, usual + dice.between(-1, 2))
